"""How stages compute: float32 where float32 is asked for, and as repeatable as the parameters say."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.stages import recording
from tests.stages.conftest import build_params

if TYPE_CHECKING:
    from ltrec.compute.device import DeterminismName


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize(("mode", "debug_mode"), [("warn", 1), ("error", 2), ("off", 0)])
@pytest.mark.parametrize(("stage", "variant"), [("represent", []), ("featurize", []), ("rebalance", ["crt"])])
def test_a_stage_neither_rounds_float32_nor_leaves_anything_behind(
    stage: str, variant: list[str], mode: DeterminismName, debug_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flags() -> tuple[str, int]:
        return torch.backends.cudnn.conv.fp32_precision, torch.get_deterministic_debug_mode()  # type: ignore[attr-defined]

    def stop(*_given: object, **_named: object) -> None:
        seen.append(flags())
        raise KeyboardInterrupt

    before, seen = flags(), list[tuple[str, int]]()
    monkeypatch.setattr(recording, "stage_run", stop)
    params = build_params().model_copy(update={"deterministic": mode})
    with pytest.raises(KeyboardInterrupt):
        import_module(f"ltrec.stages.{stage}").run(params, *variant)
    assert seen == [("ieee", debug_mode)]
    assert flags() == before
