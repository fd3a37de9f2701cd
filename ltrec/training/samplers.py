"""Which training images an epoch shows, and how often: the sampling strategies of Kang et al. 2020, section 3.

All but the shuffled epoch draw a class first, with probability p_j ∝ n_j^q, and then an image of that class.
Inside a class images come without replacement until the class is used up, then in a new order; that cycle goes
on over epochs, so a sampler's whole state is a few counters.

Each one's settings say as `prior_power` for which q the draws of the last epoch are p_j ∝ n_j^q: what a classifier
learns from them expects classes in these shares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Probabilities = NDArray[np.float64]

# So many draws are made at a time: they fit the processor's cache. Another number gives another order.
_DRAWS_AT_ONCE = 1 << 18


class Sampler(ABC):
    """Draws the image indices of one epoch after another; the same ones for the same seed and state."""

    def __init__(self, labels: Indices, seed: int) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.seed = seed

    @abstractmethod
    def epoch(self, epoch: int) -> Indices:
        """Return the image indices of an epoch counted from 0, (N,), as many as there are training images."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here; it can be saved as JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - by default there is no state
        """Go on where `state_dict` was taken."""


class ShuffledSampler(Sampler):
    """Every image once an epoch, in a new order: instance-balanced sampling."""

    def epoch(self, epoch: int) -> Indices:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))


class _ClassSampler(Sampler):
    """Draws classes; the images follow from each class's endless shuffled cycle.

    Indices are kept in as few bytes as they need: 10^7 images take some hundred megabytes.
    """

    def __init__(self, labels: Indices, seed: int) -> None:
        super().__init__(labels, seed)
        self._counts = np.bincount(self.labels)
        self._classes = _compact(np.flatnonzero(self._counts), len(self._counts))
        self._by_class = np.argsort(_compact(self.labels, len(self._counts)), kind="stable")
        self._by_class = _compact(self._by_class, len(self.labels))
        self._first = np.cumsum(self._counts) - self._counts
        self._drawn = np.zeros(len(self._counts), dtype=np.int64)
        self._random = np.random.Philox(seed)
        self._start = self._random.state

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._drawn = np.array(state["drawn"], dtype=np.int64)

    def _draw(self, classes: NDArray[Any]) -> Indices:
        """Return the images of an epoch whose classes (N,) are drawn, (N,): for each, the next one of its class."""
        draws = np.bincount(classes, minlength=len(self._counts))  # of each class
        ends = np.cumsum(draws)
        by_class = np.empty_like(self._by_class)  # the epoch's images, class after class
        for label in np.flatnonzero(draws).tolist():
            count, end = int(draws[label]), int(ends[label])
            by_class[end - count : end] = self._next(label, count)
        self._drawn += draws
        images = np.empty(len(classes), dtype=np.int64)
        following = ends - draws  # each class's first image that is not placed yet
        for start in range(0, len(images), _DRAWS_AT_ONCE):
            block = classes[start : start + _DRAWS_AT_ONCE]
            counts = np.bincount(block, minlength=len(draws))
            taken = np.arange(len(block)) + np.repeat(following - np.cumsum(counts) + counts, counts)
            images[start + np.argsort(block, kind="stable")] = by_class[taken]
            following += counts
        return images

    def _next(self, label: int, count: int) -> NDArray[Any]:
        """Return the next images of a class's cycle, (count,)."""
        first, size, drawn = int(self._first[label]), int(self._counts[label]), int(self._drawn[label])
        cycle, skipped = divmod(drawn, size)
        cycles = self._orders(label, size, cycle, -(-(drawn + count) // size))
        return np.asarray(self._by_class[first : first + size][cycles.ravel()[skipped : skipped + count]])

    def _orders(self, stream: int, size: int, begin: int, end: int) -> Indices:
        """Return a stream's random orders `begin` to `end` (exclusive) of `size` things, (end - begin, size).

        They lie one after another in Philox (Salmon et al. 2011), which can start anywhere: none has to be kept.
        """
        block, skipped = divmod(begin * size, 4)  # A step of the counter gives four numbers.
        self._start["state"]["counter"][:] = block, 0, stream, 0
        self._random.state = self._start
        keys = self._random.random_raw(skipped + (end - begin) * size)[skipped:]
        return np.asarray(keys.reshape(-1, size).argsort(axis=1))


class FrequencySampler(_ClassSampler):
    """Draws each class independently with the probability that `probabilities(counts, epoch)` gives it."""

    def __init__(self, labels: Indices, seed: int, probabilities: Callable[[Indices, int], Probabilities]) -> None:
        super().__init__(labels, seed)
        self._probabilities = probabilities

    def epoch(self, epoch: int) -> Indices:
        probabilities = self._probabilities(self._counts[self._classes], epoch)
        random = np.random.default_rng([self.seed, epoch])
        classes = np.empty(len(self.labels), dtype=self._classes.dtype)
        for block in np.split(classes, range(_DRAWS_AT_ONCE, len(classes), _DRAWS_AT_ONCE)):
            # Drawing how often each class comes, then an order, is as random as class by class and much faster.
            block[:] = np.repeat(self._classes, random.multinomial(len(block), probabilities))
            random.shuffle(block)
        return self._draw(classes)


class CycleSampler(_ClassSampler):
    """Visits all classes in a shuffled cycle and takes `per_visit` images of a class at each visit."""

    def __init__(self, labels: Indices, seed: int, per_visit: int) -> None:
        super().__init__(labels, seed)
        self.per_visit = per_visit
        self._position = 0

    def epoch(self, epoch: int) -> Indices:  # noqa: ARG002 - the cycle goes on over epochs
        length, count = len(self._classes) * self.per_visit, len(self.labels)
        cycle, skipped = divmod(self._position, length)
        cycles = self._orders(len(self._counts), len(self._classes), cycle, -(-(self._position + count) // length))
        visits = np.repeat(self._classes[cycles.ravel()], self.per_visit)
        self._position += count
        return self._draw(visits[skipped : skipped + count])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._position = int(state["position"])


class PairedSampler(Sampler):
    """Draws of two samplers: a batch's worth of the first, one of the second, and so on; full batches alone.

    One loader then decodes both, and each update takes two batches.

    Args:
        first: Draws the one.
        second: Draws the other.
        batch_size: Images in a batch.
    """

    def __init__(self, first: Sampler, second: Sampler, batch_size: int) -> None:
        super().__init__(first.labels, first.seed)
        self._parts, self._batch_size = (first, second), batch_size

    def epoch(self, epoch: int) -> Indices:
        """Return the image indices of an epoch counted from 0, (2 · ⌊N / B⌋ · B,)."""
        full = len(self.labels) // self._batch_size * self._batch_size
        turns = [part.epoch(epoch)[:full].reshape(-1, self._batch_size) for part in self._parts]
        return np.stack(turns, axis=1).ravel()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, of_part in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(of_part)


def power_probabilities(counts: Indices, q: float) -> Probabilities:
    """Return p_j ∝ n_j^q (eq. 1) for counts n (C,), (C,): q = 1 instance-balanced, 0 class-balanced, ½ square-root."""
    weights: Probabilities = np.power(counts.astype(np.float64), q)
    return np.asarray(weights / weights.sum())


def progressive_probabilities(counts: Indices, progress: float) -> Probabilities:
    """Return (1 − t/T)·p_instance + (t/T)·p_class (eq. 2) for counts (C,) and a progress t/T in 0…1, (C,)."""
    return (1 - progress) * power_probabilities(counts, 1) + progress * power_probabilities(counts, 0)


def _compact(indices: Indices, end: int) -> NDArray[Any]:
    """Return whole numbers below `end` in as few bytes as hold them; NumPy also sorts two bytes much faster."""
    return indices.astype(np.min_scalar_type(end))


class InstanceBalanced(Settings):
    """Every image once an epoch: the natural, long-tailed distribution."""

    name: Literal["instance_balanced"] = "instance_balanced"
    prior_power: ClassVar[float] = 1.0

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002 - one signature for all
        return ShuffledSampler(labels, seed)


class ClassBalanced(Settings):
    """Every class equally often."""

    name: Literal["class_balanced"] = "class_balanced"
    per_visit: PositiveInt = 4
    """Images of a class at each visit of the shuffled cycle over the classes."""
    prior_power: ClassVar[float] = 0.0

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return CycleSampler(labels, seed, self.per_visit)


class SquareRoot(Settings):
    """Class j with probability ∝ √n_j."""

    name: Literal["square_root"] = "square_root"
    prior_power: ClassVar[float] = 0.5

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return FrequencySampler(labels, seed, lambda counts, _epoch: power_probabilities(counts, 0.5))


class Power(Settings):
    """Class j with probability ∝ n_j^q."""

    name: Literal["power"] = "power"
    q: Annotated[float, Field(ge=0, le=1)]
    """1 is instance-balanced, 0 class-balanced, 0.5 square-root."""

    @property
    def prior_power(self) -> float:
        """Return q."""
        return self.q

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:  # noqa: ARG002
        return FrequencySampler(labels, seed, lambda counts, _epoch: power_probabilities(counts, self.q))


class ProgressivelyBalanced(Settings):
    """Instance-balanced at the first epoch, class-balanced at the last, linear between."""

    name: Literal["progressively_balanced"] = "progressively_balanced"
    prior_power: ClassVar[float] = 0.0  # the last epoch's, which it ends with

    def build(self, labels: Indices, *, seed: int, epochs: int) -> Sampler:
        def probabilities(counts: Indices, epoch: int) -> Probabilities:
            return progressive_probabilities(counts, epoch / max(epochs - 1, 1))

        return FrequencySampler(labels, seed, probabilities)


SamplerSettings = Annotated[
    InstanceBalanced | ClassBalanced | SquareRoot | Power | ProgressivelyBalanced, Field(discriminator="name")
]
