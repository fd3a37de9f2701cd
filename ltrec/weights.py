"""Weights from files that others wrote: read without running their code, and loaded exactly or not at all."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

# What a training script's checkpoint keeps its network under.
_WRAPPERS = ("state_dict", "model")
# Batch norm's counter, which PyTorch before 0.4.1 did not write and nothing here reads.
_COUNTER = "num_batches_tracked"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: of a safetensors file, or of a PyTorch one whose code, if any, is not run.

    A state dict under `state_dict` or `model` is taken out, and DataParallel's `module.` left off.

    Raises:
        UserError: no such file, damaged, a pickle that would run code, or no state dict.
    """
    if not path.is_file():
        raise UserError("no such file", where=str(path))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return strip_prefix(state_dict_of(content, where=str(path)))


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, with PyTorch's weights-only reader.

    Raises:
        UserError: damaged, or a pickle that asks for more than tensors and plain values.
    """
    from pickle import UnpicklingError

    import torch

    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            what = f"its pickle asks for {asked[1]}, which is not run; allowed: tensors and plain values"
        else:
            # An unpickling error advises to load it unsafely.
            why = "" if isinstance(error, UnpicklingError) else f" ({one_line(error, 80)})"
            what = f"damaged, or not what torch.save writes{why}"
        raise UserError(what, where=str(path)) from None


def state_dict_of(content: object, *, where: str) -> dict[str, Tensor]:
    """The content itself, if it is a mapping from names to tensors.

    Raises:
        UserError: it is something else; says what.
    """
    import torch

    if not isinstance(content, dict) or not content:
        raise UserError(f"no state dict: its content is {type(content).__name__}, {_brief(content)}", where=where)
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(
            f"no state dict: {', '.join(map(str, others[:10]))} hold no tensor;"
            f" allowed: names and tensors, alone or under {' or '.join(_WRAPPERS)}",
            where=where,
        )
    return {str(name): tensor for name, tensor in content.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Without a prefix that every name carries, as DataParallel's do; else as they are."""
    if not all(name.startswith(prefix) for name in tensors):
        return dict(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, ignore: Sequence[str] = ()) -> None:
    """Put tensors into a module that has exactly these; batch norm's counters may be missing.

    Args:
        module: Changed only if everything fits.
        tensors: By the names of its state dict.
        where: What was read, for the message.
        ignore: Beginnings of names that are left out, such as `fc.`.

    Raises:
        UserError: names every missing, unexpected and misshapen tensor; `layer1.*` is all of layer1's.
    """
    import torch

    expected = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(ignore))}
    counters = {name: torch.zeros_like(tensor) for name, tensor in expected.items() if name.endswith(_COUNTER)}
    given = counters | given
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    complaints = {
        "missing": _condensed([name for name in expected if name not in given], expected.keys() - counters.keys()),
        "unexpected": _condensed([name for name in given if name not in expected], given),
        "of another shape": misshapen,
    }
    if any(complaints.values()):
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in complaints.items() if names)
        raise UserError(f"does not fit the network: {said}", where=where)
    module.load_state_dict(given)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"damaged or not a safetensors file ({one_line(error, 80)})", where=str(path)) from None


def _condensed(names: list[str], among: Iterable[str]) -> list[str]:
    """The names in order, with `prefix.*` for the whole of a prefix's when none of its others are `among`."""
    chosen = set(names)
    taken = {prefix for other in among if other not in chosen for prefix in _prefixes(other)}
    groups = {name: next((prefix for prefix in _prefixes(name) if prefix not in taken), None) for name in names}
    sizes = Counter(groups.values())
    return list(dict.fromkeys(f"{group}*" if group and sizes[group] > 1 else name for name, group in groups.items()))


def _prefixes(name: str) -> list[str]:
    return [name[: place + 1] for place, letter in enumerate(name) if letter == "."]


def _brief(content: object) -> str:
    text = one_line(ValueError(repr(content)), 60)
    return text or "empty"
