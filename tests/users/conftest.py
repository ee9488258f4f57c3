"""A backbone whose next tokens depend on what came before, and users with soft tokens that are far apart."""

from pathlib import Path

import pytest
import torch

from rlphf.lm.backbone import load_backbone
from rlphf.settings_users import Users
from rlphf.users.model import UserModel, new_user_model


@pytest.fixture(scope="session")
def model(tiny_backbone: Path):
    """The tiny backbone with larger weights in its layers: with small ones the likeliest token is the one before."""
    model = load_backbone(tiny_backbone)[0]
    for name, parameter in model.named_parameters():
        if "_proj" in name:
            parameter.mul_(4)
    return model


@pytest.fixture(scope="session")
def tokenizer(tiny_backbone: Path):
    return load_backbone(tiny_backbone)[1]


@pytest.fixture
def begins(tiny_backbone: Path):
    """A function that returns a tokenizer of which one token begins a text."""

    def made(token: int):
        tokenizer = load_backbone(tiny_backbone)[1]
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(token)
        return tokenizer

    return made


@pytest.fixture
def vocabulary() -> torch.Tensor:
    """Embeddings (40, 6) of which no two are alike."""
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(2))


def made(vocabulary: torch.Tensor, users: list[int], **settings) -> UserModel:
    """Return a user model of three soft tokens and four clusters."""
    return new_user_model(Users(**{"tokens": 3, "clusters": 4} | settings), users, vocabulary, seed=5)
