from __future__ import annotations

import pytest
import torch

from wsol.models import Localizer, build_localizer


@pytest.fixture(scope="session")
def imagenet_lite0() -> Localizer:
    """Pretrained backbone under a random GAP head, in evaluation mode; read only."""
    return build_localizer("efficientnet_lite0", "gap", 3, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 70, 97, generator=torch.Generator().manual_seed(1))
