"""Reads weights from files that others wrote, without running their code, and loads them exactly or not at all."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ltrec import console
from ltrec.artifacts import present
from ltrec.errors import UserError, one_line
from ltrec.models.checkpoints import is_sound, read_checkpoint
from ltrec.models.tensor_mismatch import COUNTER, tensor_mismatches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

# Under these keys a training script's checkpoint keeps its network, ...
_WRAPPERS = ("state_dict", "model")
# ... and the research code's checkpoints keep theirs under these.
_PUBLISHED = ("state_dict_best", "feat_model")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or a PyTorch file by name, on the CPU; code in the file is not run.

    A state dict under `state_dict` or `model` is taken out, and DataParallel's `module.` left off. Of a network that
    ltrec saved, the backbone is returned.

    Raises:
        UserError: The file is missing, damaged, would run code, or holds no state dict.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return strip_prefix(_state_dict(content, where=str(path)))


def _state_dict(content: object, *, where: str) -> dict[str, Tensor]:
    """Return a checkpoint's content as a state dict.

    Raises:
        UserError: The content is something else; the message says what.
    """
    if not isinstance(content, dict) or not content:
        raise UserError(f"no state dict: its content is {type(content).__name__}, {reprlib.repr(content)}", where=where)
    if not set(_PUBLISHED).isdisjoint(content):
        raise UserError(
            "is a checkpoint of the research code, of backbone and classifier: `ltrec checkpoint import` takes it over",
            where=where,
        )
    if others := [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise UserError(
            f"no state dict: {console.first_five(others, f'{where}: no tensor')} hold no tensor;"
            f" allowed: names and tensors, alone or under {' or '.join(_WRAPPERS)}",
            where=where,
        )
    if unsound := [str(name) for name, tensor in content.items() if not is_sound(tensor)]:
        named = console.first_five(unsound, f"{where}: no dense real numbers")
        raise UserError(f"no state dict: {named} hold no dense real numbers", where=where)
    return {str(name): tensor for name, tensor in content.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Return the tensors without a prefix that all names carry, as DataParallel's do; else as they are."""
    shared = prefix if all(name.startswith(prefix) for name in tensors) else ""
    return {name.removeprefix(shared): tensor for name, tensor in tensors.items()}


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, ignore: Sequence[str] = ()) -> None:
    """Load a state dict into a module that has exactly these tensors; batch norm's counters may be missing.

    Names that begin with one of `ignore` are left out; `where` says what was read, for the message.

    Raises:
        UserError: Tensors are missing, unexpected or misshapen; the message counts and names them.
    """
    expected = module.state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(ignore))}
    if mismatches := tensor_mismatches(kept, expected, where):
        raise UserError(f"does not fit the network: {mismatches}", where=where)
    counters = {name: torch.zeros_like(tensor) for name, tensor in expected.items() if name.endswith(COUNTER)}
    module.load_state_dict(counters | kept)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(present(path))
    except SafetensorError as error:
        raise UserError(f"damaged or not a safetensors file ({one_line(error, 80)})", where=str(path)) from None
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return backbone or tensors
