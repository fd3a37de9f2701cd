"""Checkpoints as the research code writes them, of small random networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec.models.backbones import CifarResNetBackbone
from tests.stages.conftest import _prepared, params, prepared  # noqa: F401 - fixtures, here too

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    Write = Callable[[object], Path]
    States = dict[str, dict[str, Tensor]]

CLASSES = 3
DIM = 64  # of cifar_resnet8


def states(*, backbone: nn.Module | None = None, dim: int = DIM, scales: bool = False, prefix: str = "") -> States:
    """Both networks' state dicts, every tensor random, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(5)
    backbone = backbone or CifarResNetBackbone(name="cifar_resnet8").build(8)
    classifier = {"scales": torch.empty(CLASSES)} if scales else {}
    classifier |= {"fc.weight": torch.empty(CLASSES, dim), "fc.bias": torch.empty(CLASSES)}

    def drawn(like: Tensor) -> Tensor:
        if not like.is_floating_point():
            return torch.full_like(like, 7)
        return torch.rand(like.shape, generator=generator) + 0.1  # variances are positive

    return {
        network: {f"{prefix}{name}": drawn(tensor) for name, tensor in of.items()}
        for network, of in {"feat_model": backbone.state_dict(), "classifier": classifier}.items()
    }


def best(parts: States, **more: Any) -> dict[str, Any]:
    """The form of `final_model_checkpoint.pth`."""
    facts = {"epoch": 90, "best_epoch": 88, "best_acc": 0.44, "centroids": None}
    return {**facts, "state_dict_best": parts, **more}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Saves a checkpoint."""

    def write(content: object, **options: Any) -> Path:
        file = tmp_path / "published.pth"
        torch.save(content, file, **options)
        return file

    return write
