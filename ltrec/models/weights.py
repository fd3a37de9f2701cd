"""Reads weights from files that others wrote, without running their code, and loads them exactly or not at all."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

from ltrec.artifacts import present
from ltrec.errors import UserError, one_line
from ltrec.models.checkpoints import is_sound, read_checkpoint
from ltrec.models.tensor_mismatch import COUNTER, tensor_mismatches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

# What a training script's checkpoint keeps its network under.
_WRAPPERS = ("state_dict", "model")
# What the research code's checkpoints keep theirs under.
_PUBLISHED = ("state_dict_best", "feat_model")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or a PyTorch file by name, on the CPU; code in the file is not run.

    A state dict under `state_dict` or `model` is taken out, and DataParallel's `module.` left off. Of a network of
    ltrec's own the backbone is returned.

    Raises:
        UserError: There is no such file, it is damaged, it would run code, or it holds no state dict.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return strip_prefix(_state_dict(content, where=str(path)))


def _state_dict(content: object, *, where: str) -> dict[str, Tensor]:
    """Return the content itself, if it is a mapping from names to tensors.

    Raises:
        UserError: It is something else; the message says what.
    """
    import torch

    if not isinstance(content, dict) or not content:
        raise UserError(f"no state dict: its content is {type(content).__name__}, {reprlib.repr(content)}", where=where)
    if not set(_PUBLISHED).isdisjoint(content):
        raise UserError(
            "is a checkpoint of the research code, of backbone and classifier: `ltrec checkpoint import` takes it over",
            where=where,
        )
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(
            f"no state dict: {', '.join(map(str, others[:10]))} hold no tensor;"
            f" allowed: names and tensors, alone or under {' or '.join(_WRAPPERS)}",
            where=where,
        )
    if unsound := [str(name) for name, tensor in content.items() if not is_sound(tensor)]:
        raise UserError(f"no state dict: {', '.join(unsound[:10])} hold no dense real numbers", where=where)
    return {str(name): tensor for name, tensor in content.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Return the tensors without a prefix that all names carry, as DataParallel's do; else as they are."""
    if not all(name.startswith(prefix) for name in tensors):
        return dict(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, ignore: Sequence[str] = ()) -> None:
    """Put tensors into a module that has exactly these; batch norm's counters may be missing.

    Args:
        module: It is changed only if everything fits.
        tensors: The tensors by the names of the module's state dict.
        where: What was read, for the message.
        ignore: Beginnings of names that are left out, such as `fc.`.

    Raises:
        UserError: Tensors are missing, unexpected or misshapen; the message names them all.
    """
    import torch

    expected = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(ignore))}
    if wrong := tensor_mismatches(given, expected):
        raise UserError(f"does not fit the network: {wrong}", where=where)
    counters = {name: torch.zeros_like(tensor) for name, tensor in expected.items() if name.endswith(COUNTER)}
    module.load_state_dict(counters | given)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(present(path))
    except SafetensorError as error:
        raise UserError(f"damaged or not a safetensors file ({one_line(error, 80)})", where=str(path)) from None
    prefix = "backbone."
    of_backbone = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return of_backbone or tensors
