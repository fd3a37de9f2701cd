"""Freezing: which parts of a backbone stay as they are while the rest trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.errors import UserError
from ltrec.models.depth import children, depths, within
from ltrec.settings import Count, PositiveInt, Settings

if TYPE_CHECKING:
    from torch import nn

_WHERE = "params.yaml: represent.freeze"


class FreezeByName(Settings):
    """Freeze the parts that are listed."""

    by: Literal["name"]
    modules: Annotated[list[str], Field(min_length=1)]
    """Names of modules or parameters as the backbone's state dict has them, such as `layer1` or `layer4.0.bn1`."""

    @property
    def changes(self) -> bool:
        """Return whether more trains in later epochs."""
        return False

    def frozen(self, backbone: nn.Module, epoch: int = 0) -> list[str]:  # noqa: ARG002 - one signature
        """Return the names of the frozen parts, each of which holds parameters; they are the same in every epoch.

        Raises:
            UserError: a name matches nothing; the message lists what there is beside it.
        """
        parameters = [name for name, _ in backbone.named_parameters()]

        def exists(part: str) -> bool:
            return any(within(parameter, [part]) for parameter in parameters)

        for name in self.modules:
            if not exists(name):
                parent = name.rpartition(".")[0]
                while parent and not exists(parent):
                    parent = parent.rpartition(".")[0]
                found = ", ".join(children(parameters, parent))
                raise UserError(
                    f"{name!r} matches nothing in the backbone; {parent or 'at its top'} has {found}",
                    where=f"{_WHERE}.modules",
                )
        return self.modules


class FreezeByDepth(Settings):
    """Freeze all but the last blocks."""

    by: Literal["depth"]
    trained: Count
    """How many of the backbone's parts train, counted from the end: a transformer's blocks, with the norm behind them;
    a ResNet's layer1 … layer4. The stem before the first block is one more."""
    unfreeze_every: PositiveInt | None = None
    """Epochs after which one more part trains, again and again, down to the stem; null: none."""

    @property
    def changes(self) -> bool:
        """Return whether more trains in later epochs."""
        return self.unfreeze_every is not None

    def frozen(self, backbone: nn.Module, epoch: int = 0) -> list[str]:
        """Return the names of the parts that are frozen in an epoch: all that come before the trained ones.

        Raises:
            UserError: nothing would be frozen to begin with; the message lists the parts.
        """
        found = depths(backbone)
        if self.trained >= (count := len(found.parts)):
            listed = ", ".join(" + ".join(part) for part in found.parts)
            raise UserError(
                f"{self.trained} of the backbone's {count} parts would freeze nothing: {listed};"
                f" allowed: 0 to {count - 1}",
                where=f"{_WHERE}.trained",
            )
        more = epoch // self.unfreeze_every if self.unfreeze_every else 0
        return found.before_last(min(self.trained + more, count))


FreezeSettings = Annotated[FreezeByName | FreezeByDepth, Field(discriminator="by")]


def freeze(backbone: nn.Module, frozen: list[str]) -> None:
    """Switch off the gradients of what lies within the frozen parts; the modules' mode is left to `hold_still`."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(not within(name, frozen))


def hold_still(backbone: nn.Module, frozen: list[str]) -> None:
    """Set the modules within the frozen parts to evaluation mode: batch norm's statistics stay, dropout rests."""
    for name, module in backbone.named_modules():
        if name and within(name, frozen):
            module.training = False
