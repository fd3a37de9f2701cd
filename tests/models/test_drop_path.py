"""Drop path: which blocks are left out in training, and how often."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.ops import StochasticDepth

from ltrec.errors import UserError
from ltrec.models.backbones import TorchvisionBackbone


def rates(name: str, **settings: Any) -> list[float]:
    with torch.device("meta"):
        built = TorchvisionBackbone.model_validate({"name": name, **settings}).build(224)
    return [module.p for module in built.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t", "efficientnet_b0", "maxvit_t"])
def test_drop_path_rises_linearly_to_the_last_block(name: str) -> None:
    found = rates(name, drop_path=0.4)
    assert found == pytest.approx([0.4 * block / (len(found) - 1) for block in range(len(found))])
    assert set(rates(name, drop_path=0.0)) == {0.0}
    assert 0 < max(rates(name)) < 0.4, "null leaves torchvision's own"


def test_a_network_without_drop_path_is_one_line() -> None:
    message = (
        r"^params\.yaml: represent\.backbone\.drop_path: resnet18 has no drop path, got 0\.1; .* allowed here: null"
    )
    with pytest.raises(UserError, match=message):
        rates("resnet18", drop_path=0.1)
