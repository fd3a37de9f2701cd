"""What all backbones share: settings that name the network, and the weights that it begins with."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from ltrec import console
from ltrec.errors import UserError, one_line
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from ltrec.models.preprocessing import Preprocessing

SUFFIXES = (".pth", ".pt", ".safetensors")
WHERE = "params.yaml: represent.backbone"


class Pretrainable(Settings):
    """A backbone that may begin with weights from elsewhere."""

    weights: str | None = None
    """Pretrained weights: a file (`.safetensors`, such as another training's `model.safetensors`; or `.pth` or `.pt`
    with a state dict); null: random.

    The resume key and the network's header hold the file's SHA-256; DVC does not see it change."""

    @property
    def file(self) -> Path | None:
        """Return where the weights lie, if that is a file: a value with a separator or a known suffix."""
        if self.weights is None or not ({"/", os.sep} & set(self.weights) or self.weights.endswith(SUFFIXES)):
            return None
        return Path(self.weights)

    def digest(self) -> str | None:
        """Return SHA-256 of the weights file's content; None where there is no file.

        Raises:
            UserError: there is no such file.
        """
        if self.file is None:
            return None
        if not self.file.is_file():
            raise UserError(f"no such file, got {self.weights}", where=f"{WHERE}.weights")
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def preprocessing(self) -> Preprocessing | None:
        """Return how images were preprocessed for the weights, where that is published with them.

        Raises:
            UserError: there are no weights of this name.
        """
        return None

    def weights_license(self) -> str | None:
        """Return the licence of published weights, as their publisher names it; None where none is named."""
        return None

    def build(self, size: int, *, pretrained: bool = True) -> nn.Module:
        """Return the network without its classifier, for images of `size` px.

        `pretrained` false leaves the weights random.

        Raises:
            UserError: unknown, unreachable or unfit weights, or an image size that the network does not take.
        """
        from ltrec.models.weights import load_exactly, read_state_dict

        body, ignored = self._body(size, pretrained=pretrained)
        if pretrained and self.file is not None:
            tensors = self._translated(read_state_dict(self.file), body)
            load_exactly(body, tensors, str(self.file), ignored)
            if left_out := [f"{start}*" for start in ignored if any(name.startswith(start) for name in tensors)]:
                console.say(f"{self.file}: {', '.join(left_out)} left out; the classifier is learnt anew")
        return body

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:
        """Return the network, and the prefixes of the tensors that a file has for the classifier."""
        raise NotImplementedError

    def _translated(self, tensors: Mapping[str, Tensor], body: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG002 - one signature
        """Return a file's tensors under the names and in the shapes that the network has for them."""
        return tensors

    def _unfetched(self, wanted: str, looked_in: str, error: Exception) -> UserError:
        """Return what to say of weights that are not on this machine and could not be fetched."""
        return UserError(
            f"the weights {self.weights!r} could not be fetched ({one_line(error, 120)}): wanted is {wanted}, which is"
            f" not in {looked_in} either; `weights: FILE` takes a file from elsewhere, null trains from nothing",
            where=f"{WHERE}.weights",
        )


class FromFile(Pretrainable):
    """A backbone whose weights nobody publishes under a name."""

    @model_validator(mode="after")
    def _weights_are_a_file(self) -> Self:
        if self.weights is not None and self.file is None:
            raise ValueError(f"weights must be a file ({', '.join(SUFFIXES)}) or null, got {self.weights!r}")
        return self
