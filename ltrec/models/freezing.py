"""Freezing: which parts of a backbone stay as they are while the rest trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.errors import UserError
from ltrec.settings import Count, Settings

if TYPE_CHECKING:
    from torch import nn

_WHERE = "params.yaml: represent.freeze"


class FreezeByName(Settings):
    """Freeze the parts that are listed."""

    by: Literal["name"]
    modules: Annotated[list[str], Field(min_length=1)]
    """Names of modules or parameters as the backbone's state dict has them, such as `layer1` or `layer4.0.bn1`."""

    def frozen(self, backbone: nn.Module) -> list[str]:
        """Return the names of the frozen parts, each of which holds parameters.

        Raises:
            UserError: a name matches nothing; the message lists what there is beside it.
        """
        parameters = [name for name, _ in backbone.named_parameters()]

        def exists(part: str) -> bool:
            return any(_within(parameter, [part]) for parameter in parameters)

        for name in self.modules:
            if not exists(name):
                parent = name.rpartition(".")[0]
                while parent and not exists(parent):
                    parent = parent.rpartition(".")[0]
                children = ", ".join(_children(parameters, parent))
                raise UserError(
                    f"{name!r} matches nothing in the backbone; {parent or 'at its top'} has {children}",
                    where=f"{_WHERE}.modules",
                )
        return self.modules


class FreezeByDepth(Settings):
    """Freeze all but the last blocks."""

    by: Literal["depth"]
    trained: Count
    """How many of the backbone's top-level parts with parameters train, counted from the end; a ResNet's are
    conv1, bn1, layer1 … layer4."""

    def frozen(self, backbone: nn.Module) -> list[str]:
        """Return the names of the frozen parts: all that come before the trained ones.

        Raises:
            UserError: nothing would be frozen; the message lists the parts.
        """
        parameters = [name for name, _ in backbone.named_parameters()]
        names = _children(parameters, "")
        while len(names) == 1 and names[0] not in parameters:
            names = [f"{names[0]}.{child}" for child in _children(parameters, names[0])]
        if self.trained >= len(names):
            raise UserError(
                f"{self.trained} of the backbone's {len(names)} parts would freeze nothing: {', '.join(names)};"
                f" allowed: 0 to {len(names) - 1}",
                where=f"{_WHERE}.trained",
            )
        return names[: len(names) - self.trained]


FreezeSettings = Annotated[FreezeByName | FreezeByDepth, Field(discriminator="by")]


def freeze(backbone: nn.Module, frozen: list[str]) -> None:
    """Switch off the gradients of what lies within the frozen parts; the modules' mode is left to `hold_still`."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(not _within(name, frozen))


def hold_still(backbone: nn.Module, frozen: list[str]) -> None:
    """Set the modules within the frozen parts to evaluation mode: batch norm's statistics stay, dropout rests."""
    for name, module in backbone.named_modules():
        if name and _within(name, frozen):
            module.training = False


def _within(name: str, parts: list[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _children(parameters: list[str], parent: str) -> list[str]:
    """Return the names of what lies directly below a part (empty: at the top), in order."""
    start = f"{parent}." if parent else ""
    below = (name.removeprefix(start) for name in parameters if name.startswith(start))
    return list(dict.fromkeys(name.partition(".")[0] for name in below))
