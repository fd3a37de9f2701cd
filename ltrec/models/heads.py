"""Heads: modules from features (N, D) to logits (N, C), whatever the method that made them.

N images, D feature dimensions, C classes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrec import artifacts
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


# Larger arrays than 32 MiB are new pages from the system each time: twice as slow at 2048 dimensions.
_IMAGES_AT_ONCE = 2048
# Below it a norm counts as this, as in torch's own normalisation.
_TINY = 1e-12

Transform = Literal["un", "l2n", "cl2n"]
Distance = Literal["euclidean", "cosine"]


class Head(nn.Module):
    """Logits are `scores(features) / temperature`; the temperature never changes which class wins."""

    kind: str
    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:
        """From the tensors of its state and its `options()`."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """What besides its tensors a head is made of; JSON."""
        return {}

    @property
    def dim(self) -> int:
        """D, the features that the head takes."""
        raise NotImplementedError

    @property
    def classes(self) -> int:
        """C, the logits that it gives."""
        raise NotImplementedError

    def scores(self, features: Tensor) -> Tensor:
        """(N, D) → (N, C)."""
        raise NotImplementedError

    def duplicate(self) -> Head:
        """Return a head that gives the same logits, with tensors of its own, for a method to begin with."""
        return copy.deepcopy(self)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) → (N, C)."""
        return self.scores(features) / self.temperature


class LinearHead(Head):
    """w_j·x + b_j: the joint classifier, cRT, and τ-normalised weights (without bias)."""

    kind = "linear"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    @classmethod
    def drawn(cls, classes: int, dim: int) -> Self:
        """Random weights as `torch.nn.Linear` draws them."""
        linear = nn.Linear(dim, classes)
        return cls(linear.weight.detach(), linear.bias.detach())

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:  # noqa: ARG003
        return cls(tensors["weight"], tensors.get("bias"))

    def copied(self) -> tuple[Tensor, Tensor | None]:
        """W and b of one's own."""
        return self.weight.detach().clone(), None if self.bias is None else self.bias.detach().clone()

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    def scores(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class PublishedLwsHead(LinearHead):
    """W and b of an imported LWS checkpoint; its scales (C,) lie beside them and take no part in the scores."""

    kind = "published_lws"

    def __init__(self, weight: Tensor, bias: Tensor | None, published_scale: Tensor) -> None:
        super().__init__(weight, bias)
        self.register_buffer("published_scale", published_scale)
        self.published_scale: Tensor

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:  # noqa: ARG003
        return cls(tensors["weight"], tensors.get("bias"), tensors["published_scale"])

    def duplicate(self) -> LinearHead:
        """Return the linear head alone: the scales belong to no other method."""
        return LinearHead(*self.copied())


class ScaledHead(Head):
    """Learnable weight scaling, LWS: only the scales learn.

    s_j·(w_j·x + b_j) with `scale_bias` (eq. 4; the scale covers the bias too), else s_j·(w_j·x) + b_j.
    """

    kind = "scaled"

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor, *, scale_bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.scale = nn.Parameter(scale)
        self.scale_bias = scale_bias

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:
        return cls(tensors["weight"], tensors.get("bias"), tensors["scale"], scale_bias=options["scale_bias"])

    def options(self) -> dict[str, Any]:
        return {"scale_bias": self.scale_bias}

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    def scores(self, features: Tensor) -> Tensor:
        if self.scale_bias or self.bias is None:
            return self.scale * F.linear(features, self.weight, self.bias)
        return self.scale * F.linear(features, self.weight) + self.bias


class ScaledLogits(Head):
    """A scaled head's scales on joint logits w_j·x + b_j (N, C) in place of features; what learns is shared."""

    def __init__(self, head: ScaledHead) -> None:
        super().__init__()
        self.scale, self.bias = head.scale, None if head.scale_bias else head.bias

    @property
    def dim(self) -> int:
        return len(self.scale)

    @property
    def classes(self) -> int:
        return len(self.scale)

    def scores(self, logits: Tensor) -> Tensor:
        return self.scale * logits if self.bias is None else self.scale * (logits - self.bias) + self.bias


class NearestMeanHead(Head):
    """Closeness to each class's mean feature (NCM).

    Euclidean: 2·z·μ_j − ‖μ_j‖², which is −‖z − μ_j‖² but for a term that all classes share.
    Cosine: z·μ_j / (‖z‖ ‖μ_j‖).
    """

    kind = "nearest_mean"

    def __init__(self, means: Tensor, center: Tensor, transform: Transform, distance: Distance) -> None:
        super().__init__()
        self.transform: Transform = transform
        self.distance: Distance = distance
        self.register_buffer("means", means)
        self.register_buffer("center", center)
        self.means: Tensor
        self.center: Tensor

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Self:
        return cls(tensors["means"], tensors["center"], options["transform"], options["distance"])

    def options(self) -> dict[str, Any]:
        return {"transform": self.transform, "distance": self.distance}

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    @property
    def classes(self) -> int:
        return self.means.shape[0]

    def scores(self, features: Tensor) -> Tensor:
        z = transformed(features, self.center, self.transform)
        return closeness(z @ self.means.T, z.norm(dim=1), self.means.norm(dim=1), self.distance)


def linear_of(joint: Head) -> LinearHead:
    """Return the joint head of a method that works on w_j and b_j.

    Raises:
        UserError: The joint head is of another kind.
    """
    if not isinstance(joint, LinearHead):
        raise UserError(
            f"the method rescales the weights of a linear joint head, and this one is {joint.kind}; allowed with it:"
            " another method, or represent.head: {name: linear}"
        )
    return joint


def closeness(products: Tensor, query_norms: Tensor, mean_norms: Tensor, distance: Distance) -> Tensor:
    """How close each query z is to each mean μ_j, (N, C).

    Args:
        products: z·μ_j, (N, C).
        query_norms: ‖z‖, (N,).
        mean_norms: ‖μ_j‖, (C,).
        distance: Euclidean or cosine.
    """
    if distance == "cosine":
        return products / (query_norms.clamp(min=_TINY)[:, None] * mean_norms.clamp(min=_TINY))
    return 2 * products - mean_norms.square()


def transformed(features: Tensor, center: Tensor, transform: Transform) -> Tensor:
    """Features as NCM compares them: raw, L2-normalised, or centred and then L2-normalised; (N, D)."""
    if transform == "un":
        return features
    return F.normalize(features - center if transform == "cl2n" else features, dim=1)


def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """w_j / ‖w_j‖^τ for each row (Kang et al. 2020, eq. 3), (C, D)."""
    norms: Tensor = weight.norm(dim=1, keepdim=True)
    return weight / norms**tau


def logits_in_blocks(head: Head, features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some images at a time: which of them, and their logits (n, C), on the head's device and without a gradient.

    Args:
        head: On any device.
        features: (N, D), on the same or in the host's memory.
    """
    for start in range(0, len(features), _IMAGES_AT_ONCE):
        some = slice(start, start + _IMAGES_AT_ONCE)
        with torch.no_grad():  # not inference mode: LWS learns scales on such logits
            logits = head(features[some].to(head.temperature.device))
        yield some, logits


def logits_of(head: Head, features: Tensor) -> Tensor:
    """All logits (N, C), on the head's device and without a gradient."""
    found = torch.empty((len(features), head.classes), device=head.temperature.device)
    for some, logits in logits_in_blocks(head, features):
        found[some] = logits
    return found


def predictions_of(head: Head, features: Tensor) -> Tensor:
    """The class of each image, (N,), on the head's device; without room for all logits."""
    found = torch.empty(len(features), dtype=torch.int64, device=head.temperature.device)
    for some, logits in logits_in_blocks(head, features):
        found[some] = logits.argmax(dim=1)
    return found


_KINDS: dict[str, type[Head]] = {
    head.kind: head for head in (LinearHead, PublishedLwsHead, ScaledHead, NearestMeanHead)
}
_MATRICES = {"weight", "means"}  # (C, D)


def save(head: Head, path: Path, *, representation: str) -> None:
    """Write a head, how to rebuild it, and the digest of the network whose features it takes."""
    header = {"head": head.kind, "options": head.options(), "representation": representation}
    artifacts.save_tensors(path, head.state_dict(), header)


def load(path: Path, *, representation: str) -> Head:
    """Read what `save` wrote.

    Raises:
        UserError: missing, damaged, no head, or one for the features of another network.
    """
    tensors, header = artifacts.load_tensors(path)
    head = from_state(tensors, header, where=str(path))
    artifacts.require_made_from(path, header, representation=representation)
    return head


def from_state(tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, where: str) -> Head:
    """Rebuild a head from its state dict and its header.

    Raises:
        UserError: not the state of a head of a known kind; `where` says what was read.
    """
    kind = _KINDS.get(str(header.get("head")))
    if kind is None:
        raise UserError(f"is an artifact of ltrec's, but no head of a known kind ({', '.join(_KINDS)})", where=where)
    try:
        for name in _MATRICES & tensors.keys():
            if tensors[name].ndim != 2:
                raise UserError(f"its {name} must be (C, D), got {tuple(tensors[name].shape)}", where=where)
        head = kind.rebuild(tensors, header["options"]).eval()
        head.load_state_dict(dict(tensors))
        with torch.inference_mode():
            head(torch.zeros(1, head.dim))  # fails where its tensors do not fit each other
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"no {kind.kind} head is in it, though its header says so: {one_line(error)}", where=where
        ) from None
    return head
