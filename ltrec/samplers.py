"""Which training images an epoch shows, and how often: the sampling strategies of Kang et al. 2020, section 4.1.

All but the shuffled epoch draw a class first, with probability p_j ∝ n_j^q, and then an image of that class.
Inside a class images come without replacement until the class is used up, then in a new order; that cycle goes
on over epochs, so a sampler's whole state is a few counters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Probabilities = NDArray[np.float64]


class Sampler(ABC):
    """Draws one epoch of image indices at a time; the same ones for the same seed and state."""

    def __init__(self, labels: Indices, seed: int) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.seed = seed

    @abstractmethod
    def epoch(self, epoch: int) -> Indices:
        """The image indices of an epoch counted from 0, (N,), as many as there are training images."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing to take up by default
        """Go on where `state_dict` was taken."""


class ShuffledSampler(Sampler):
    """Every image once an epoch, in a new order: instance-balanced sampling."""

    def epoch(self, epoch: int) -> Indices:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))


class _ClassSampler(Sampler):
    """Draws classes; the images follow from each class's endless shuffled cycle."""

    def __init__(self, labels: Indices, seed: int) -> None:
        super().__init__(labels, seed)
        self._counts = np.bincount(self.labels)
        self._classes = np.flatnonzero(self._counts)
        self._by_class = np.argsort(self.labels, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._drawn = np.zeros(len(self._counts), dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._drawn = np.array(state["drawn"], dtype=np.int64)

    def _images(self, classes: Indices) -> Indices:
        """An image for each drawn class, (M,) → (M,)."""
        wanted = np.bincount(classes, minlength=len(self._counts))
        drawn = np.flatnonzero(wanted)
        sizes: Indices = self._counts[drawn]
        begin: Indices = self._drawn[drawn] // sizes
        rounds = (self._drawn[drawn] + wanted[drawn] - 1) // sizes - begin + 1

        # One row for each (class, round, image); sorting by a hash of the row orders every round anew,
        # and the same way however many epochs a round spans.
        lengths: Indices = rounds * sizes
        owner = np.repeat(np.arange(len(drawn)), lengths)
        within: Indices = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        turn = begin[owner] + within // sizes[owner]
        image = self._by_class[self._first[drawn][owner] + within % sizes[owner]]
        shuffled = image[np.lexsort((_hash(self.seed, turn, image), turn, owner))]

        skip = self._drawn[drawn] - begin * sizes
        kept = (within >= skip[owner]) & (within < (skip + wanted[drawn])[owner])
        images = np.empty(len(classes), dtype=np.int64)
        images[np.argsort(classes, kind="stable")] = shuffled[kept]
        self._drawn += wanted
        return images


class FrequencySampler(_ClassSampler):
    """Draws each class independently with the probability that `probabilities(counts, epoch)` gives it."""

    def __init__(self, labels: Indices, seed: int, probabilities: Callable[[Indices, int], Probabilities]) -> None:
        super().__init__(labels, seed)
        self._probabilities = probabilities

    def epoch(self, epoch: int) -> Indices:
        p = self._probabilities(self._counts[self._classes], epoch)
        edges = np.cumsum(p)
        uniform = np.random.default_rng([self.seed, epoch]).random(len(self.labels)) * edges[-1]
        return self._images(self._classes[np.searchsorted(edges, uniform, side="right")])


class CycleSampler(_ClassSampler):
    """Visits all classes in a shuffled cycle and takes `per_visit` images of a class at each visit."""

    def __init__(self, labels: Indices, seed: int, per_visit: int) -> None:
        super().__init__(labels, seed)
        self.per_visit = per_visit
        self._position = 0

    def epoch(self, epoch: int) -> Indices:  # noqa: ARG002 - the cycle goes on over epochs
        position = self._position + np.arange(len(self.labels))
        visit = position // self.per_visit
        cycle = visit // len(self._classes)
        cycles = np.arange(cycle[0], cycle[-1] + 1)
        keys = _hash(self.seed, cycles[:, None], self._classes[None, :])
        order = self._classes[np.argsort(keys, axis=1)]
        classes = order[cycle - cycle[0], visit % len(self._classes)]
        self._position += len(self.labels)
        return self._images(classes)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._position = int(state["position"])


def power_probabilities(counts: Indices, q: float) -> Probabilities:
    """p_j ∝ n_j^q (eq. 1), (C,) → (C,): q = 1 instance-balanced, 0 class-balanced, ½ square-root."""
    weights: Probabilities = np.power(counts.astype(np.float64), q)
    return np.asarray(weights / weights.sum())


def progressive_probabilities(counts: Indices, progress: float) -> Probabilities:
    """(1 − t/T)·p_instance + (t/T)·p_class (eq. 2), (C,) → (C,), for a progress t/T between 0 and 1."""
    return (1 - progress) * power_probabilities(counts, 1) + progress * power_probabilities(counts, 0)


def _hash(seed: int, *parts: Indices) -> NDArray[np.uint64]:
    """Steele et al.'s SplitMix64 finaliser over integers: one well-mixed key for each row, no state."""
    key = np.asarray(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    with np.errstate(over="ignore"):
        for part in parts:
            key = (key ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            key ^= key >> np.uint64(31)
    return key


class InstanceBalanced(Settings):
    """Every image once an epoch: the natural, long-tailed distribution."""

    name: Literal["instance_balanced"] = "instance_balanced"

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002 - one signature
        return ShuffledSampler(labels, seed)


class ClassBalanced(Settings):
    """Every class equally often."""

    name: Literal["class_balanced"] = "class_balanced"
    per_visit: PositiveInt = 4
    """Images of a class at each visit of the shuffled cycle over the classes."""

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return CycleSampler(labels, seed, self.per_visit)


class SquareRoot(Settings):
    """Class j with probability ∝ √n_j."""

    name: Literal["square_root"] = "square_root"

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return FrequencySampler(labels, seed, lambda counts, _epoch: power_probabilities(counts, 0.5))


class Power(Settings):
    """Class j with probability ∝ n_j^q."""

    name: Literal["power"] = "power"
    q: Annotated[float, Field(ge=0, le=1)]
    """1 is instance-balanced, 0 class-balanced, 0.5 square-root."""

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return FrequencySampler(labels, seed, lambda counts, _epoch: power_probabilities(counts, self.q))


class ProgressivelyBalanced(Settings):
    """Instance-balanced at the first epoch, class-balanced at the last, linear between."""

    name: Literal["progressively_balanced"] = "progressively_balanced"

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:
        def probabilities(counts: Indices, epoch: int) -> Probabilities:
            return progressive_probabilities(counts, epoch / max(epochs - 1, 1))

        return FrequencySampler(labels, seed, probabilities)


SamplerSettings = Annotated[
    InstanceBalanced | ClassBalanced | SquareRoot | Power | ProgressivelyBalanced, Field(discriminator="name")
]
