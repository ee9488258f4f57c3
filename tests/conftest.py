"""What tests of models share: no network, and a tiny backbone."""

import os
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
