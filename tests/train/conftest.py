"""A step's record to train under, and reward models made by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlphf.tracking.record import Run, step


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The record of a step in a folder of its own."""
    with step("test", tmp_path / "record") as run:
        yield run


@pytest.fixture(scope="session")
def make_reward(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a reward model on the tiny backbone: a LoRA with random B (of size `scale`), and a head.

    The head is random, or reads the embedding of a token: then texts that end like that token score high.
    """
    import torch
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    from rlphf.lm.adapters import lora_config, write_adapter
    from rlphf.lm.backbone import backbone_sha256
    from rlphf.settings import Lora
    from rlphf.train.reward import classifier

    def make(scale: float = 0.5, likes: int | None = None, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        model, _ = classifier(tiny_backbone)
        embedding = model.get_input_embeddings().weight.detach()
        model = get_peft_model(model, lora_config(Lora(rank=4, alpha=8, dropout=0.0), task_type="SEQ_CLS"))
        state = {name: value.clone() for name, value in get_peft_model_state_dict(model).items()}
        for name, value in state.items():
            if "lora_B" in name:
                state[name] = torch.randn_like(value) * scale
        head = torch.randn(1, embedding.shape[1]) if likes is None else embedding[likes : likes + 1] / embedding[likes].norm()
        state["base_model.model.score.weight"] = head
        folder = tmp_path_factory.mktemp("reward") / "adapter"
        about = {"kind": "reward", "preference": "P1A", "backbone_sha256": backbone_sha256(tiny_backbone)}
        write_adapter(folder, state, model.peft_config["default"].to_dict(), str(tiny_backbone), about)
        return folder

    return make
