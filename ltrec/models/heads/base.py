"""What every head is: a module from features (N, D) to logits (N, C), whatever the method that made it.

N images, D feature dimensions, C classes.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Larger arrays than 32 MiB are new pages from the system each time: twice as slow at 2048 dimensions.
_IMAGES_AT_ONCE = 2048
_OF_ALL = {"temperature", "offset"}


class Head(nn.Module):
    """Computes logits as `(scores(features) + offset) / temperature`; the offset is 0 unless the head was shifted.

    A kind's constructor takes the tensors of its state, but for these two, and its `options()`, all by name.

    Args:
        classes: C.
        dim: D.

    Attributes:
        prior_power: The p of the class prior q_j ∝ n_j^p that the probabilities answer for, n_j the training images:
            1 the training list's prior, as plain training learns it; 0 the uniform one, as all rebalancing aims at.
    """

    kind: str
    cosine_scale: float | None = None
    """s of logits s·cos θ_j, which some losses ask for; None: the logits are no cosines."""
    temperature: Tensor
    """Divides the logits, (); it never changes which class wins."""
    offset: Tensor | None
    """What is added to the scores, (C,); None: nothing."""
    prior_power: float = 0.0

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.classes = classes
        self.dim = dim
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("offset", None)

    @classmethod
    def of_state(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any], *, where: str) -> Self:  # noqa: ARG003
        """Return a head of this kind out of the tensors of its state and its options; the state is not loaded yet.

        Args:
            tensors: The state dict.
            options: What `options` gave.
            where: What was read, for a message.

        Raises:
            KeyError, TypeError, ValueError: They are not those of such a head.
            UserError: A head within it is none.
        """
        # A head without a bias has no such tensor.
        bias = {"bias": None} if "bias" in inspect.signature(cls).parameters else {}
        own = {name: tensor for name, tensor in tensors.items() if name not in _OF_ALL}
        return cls(**{**bias, **own}, **options)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        """Return what besides its tensors a head is made of, as JSON can hold it."""
        return {}

    def scores(self, features: Tensor) -> Tensor:
        """Return the logits (N, C) of features (N, D) at temperature 1."""
        raise NotImplementedError

    def duplicate(self) -> Head:
        """Return a head that gives the same logits, with tensors of its own, for a method to begin with."""
        return copy.deepcopy(self)

    def shifted(self, shift: Tensor) -> Head:
        """Return a head with tensors of its own whose logits are these plus a constant for each class, (C,)."""
        head = self.duplicate()
        shift = shift.to(self.temperature) * self.temperature
        head.offset = shift if self.offset is None else self.offset + shift
        return head

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, C) of features (N, D)."""
        scores = self.scores(features)
        return (scores if self.offset is None else scores + self.offset) / self.temperature


def logits_in_blocks(head: Head, features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the logits some images at a time: the images' slice, and (n, C) without a gradient.

    Args:
        head: On the device where the logits are wanted.
        features: (N, D), on that device or in the host's memory.
    """
    for start in range(0, len(features), _IMAGES_AT_ONCE):
        rows = slice(start, start + _IMAGES_AT_ONCE)
        with torch.no_grad():  # not inference mode: LWS learns scales on such logits
            logits = head(features[rows].to(head.temperature.device))
        yield rows, logits


def logits_of(head: Head, features: Tensor) -> Tensor:
    """Return the logits (N, C) of features (N, D), on the head's device and without a gradient."""
    logits = torch.empty((len(features), head.classes), device=head.temperature.device)
    for rows, block in logits_in_blocks(head, features):
        logits[rows] = block
    return logits


def predictions_of(head: Head, features: Tensor) -> Tensor:
    """Return the class of each image (N,), on the head's device; logits of all images are never held at once."""
    predicted = torch.empty(len(features), dtype=torch.int64, device=head.temperature.device)
    for rows, block in logits_in_blocks(head, features):
        predicted[rows] = block.argmax(dim=1)
    return predicted
