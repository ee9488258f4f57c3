"""What tests of models share: no network, a tiny backbone with its tokenizer, and reward models made by hand."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

# Libraries read these as they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama of two layers of width 32, with a tokenizer that knows the testbed's corpus.

    Its embeddings are larger than at the start of a training, so that not all next tokens are about equally likely.
    """
    import torch

    from rlphf.settings import Backbone, Testbed
    from rlphf.testbed.prompts import corpus
    from rlphf.train.backbone import small_llama, train_tokenizer

    texts = [f"{prompt}\n{response}" for prompt, response in islice(corpus(Testbed(), seed=0), 200)]
    tokenizer = train_tokenizer(texts, 300)
    folder = tmp_path_factory.mktemp("tiny") / "backbone"
    model = small_llama(Backbone(hidden=32, layers=2, heads=4, intermediate=64), tokenizer, seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tiny_backbone: Path):
    """The tiny backbone with larger weights in its layers: with small ones the likeliest token is the one before."""
    from rlphf.lm.backbone import load_backbone

    model = load_backbone(tiny_backbone)[0]
    for name, parameter in model.named_parameters():
        if "_proj" in name:
            parameter.mul_(4)
    return model


@pytest.fixture(scope="session")
def tokenizer(tiny_backbone: Path):
    from rlphf.lm.backbone import load_backbone

    return load_backbone(tiny_backbone)[1]


@pytest.fixture
def begins(tiny_backbone: Path):
    """A function that returns a tokenizer of which one token begins a text."""
    from rlphf.lm.backbone import load_backbone

    def made(token: int):
        tokenizer = load_backbone(tiny_backbone)[1]
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(token)
        return tokenizer

    return made


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
    from rlphf.lm.reward_model import classifier
    from rlphf.settings import Lora

    def make(scale: float = 0.5, likes: int | None = None, seed: int = 0, preference: str = "P1A") -> Path:
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
        about = {"kind": "reward", "preference": preference, "backbone_sha256": backbone_sha256(tiny_backbone)}
        write_adapter(folder, state, model.peft_config["default"].to_dict(), str(tiny_backbone), about)
        return folder

    return make


@pytest.fixture(scope="session")
def seed_folder(tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed's folder with users, what they chose, prompts, and reward models and policies of three preferences."""
    from tests.users.serving import write_run

    return write_run(tmp_path_factory.mktemp("run"), tiny_backbone, make_reward)


@pytest.fixture(scope="session")
def user_models(seed_folder: Path) -> Callable[[str], Path]:
    """Return the folder of a model of users, which is trained when it is first asked for."""
    from rlphf.train.user_models import user_model_step

    def model(name: str) -> Path:
        out, files = seed_folder / "users" / "models" / name, seed_folder / "users" / "pairs"
        if not out.exists():
            pairs, backbone = [files / "pairs.parquet"], seed_folder / "backbone" / "model"
            user_model_step(seed_folder / "config.yaml", name, pairs, backbone, files / "users.parquet", out)
        return out

    return model
