"""Users with soft tokens that are far apart."""

import pytest
import torch

from rlphf.settings_users import Users
from rlphf.users.model import UserModel, new_user_model


@pytest.fixture
def vocabulary() -> torch.Tensor:
    """Embeddings (40, 6) of which no two are alike."""
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(2))


def made(vocabulary: torch.Tensor, users: list[int], **settings) -> UserModel:
    """Return a user model of three soft tokens and four clusters."""
    return new_user_model(Users(**{"tokens": 3, "clusters": 4} | settings), users, vocabulary, seed=5)
