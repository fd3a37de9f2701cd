"""Which training images an epoch shows, and how often: the sampling strategies of Kang et al. 2020, section 3.

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
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Probabilities = NDArray[np.float64]

# Draws, and rows of turns, that are worked on at a time: they fit the processor's cache.
_PIECE = 1 << 17


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
    """Draws classes; the images follow from each class's endless shuffled cycle.

    It works in pieces and keeps indices in as few bytes as they need: 10^7 images take some hundred megabytes.
    """

    def __init__(self, labels: Indices, seed: int) -> None:
        super().__init__(labels, seed)
        self._counts = np.bincount(self.labels)
        self._classes = np.flatnonzero(self._counts)
        self._by_class = np.argsort(_compact(self.labels, len(self._counts)), kind="stable")
        self._by_class = _compact(self._by_class, len(self.labels))
        self._first = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._drawn = np.zeros(len(self._counts), dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._drawn = np.array(state["drawn"], dtype=np.int64)

    def _draw(self, drawn: NDArray[Any]) -> Indices:
        """An epoch's images, (N,), for the classes drawn, (N,)."""
        wanted = np.bincount(drawn, minlength=len(self._counts))
        places = np.argsort(drawn, kind="stable")
        images, filled = np.empty(len(places), dtype=np.int64), 0
        for piece in self._pieces(wanted):
            images[places[filled : filled + len(piece)]] = piece
            filled += len(piece)
        self._drawn += wanted
        return images

    def _pieces(self, wanted: Indices) -> Iterator[NDArray[Any]]:
        """The next `wanted` images of each class, (C,) → class after class, in parts."""
        classes = np.flatnonzero(wanted)
        sizes, drawn = self._counts[classes], self._drawn[classes]
        begin = drawn // sizes
        end = (drawn + wanted[classes] - 1) // sizes + 1
        # A run is some turns through one class, as many as make up a piece; a turn itself is never cut.
        turns = np.maximum(_PIECE // sizes, 1)
        runs = -((begin - end) // turns)
        owner = np.repeat(np.arange(len(classes)), runs)
        first = begin[owner] + turns[owner] * (np.arange(len(owner)) - np.repeat(np.cumsum(runs) - runs, runs))
        last = np.minimum(first + turns[owner], end[owner])
        filled = np.cumsum((last - first) * sizes[owner])
        for part in np.split(np.arange(len(owner)), np.flatnonzero(np.diff(filled // _PIECE)) + 1):
            yield self._turns(classes[owner[part]], first[part], last[part], wanted)

    def _turns(self, classes: Indices, first: Indices, last: Indices, wanted: Indices) -> NDArray[Any]:
        """What is wanted of the turns `first` to before `last` through each of some classes."""
        run = np.repeat(np.arange(len(classes)), last - first)
        turn = np.arange(len(run)) - np.repeat(np.cumsum(last - first) - last, last - first)
        of_class = classes[run]
        sizes = self._counts[of_class]
        ends = np.cumsum(sizes)
        rows = int(ends[-1])

        # One row for each (turn, image); sorting by a hash of the row orders every turn anew, and the same way
        # however many epochs it spans. Above the hash stands the turn, below it the row.
        unit = np.repeat(np.arange(len(run), dtype=np.min_scalar_type(len(run))), sizes)
        row = np.arange(rows, dtype=np.min_scalar_type(rows))
        image = self._by_class[row + (self._first[of_class] + sizes - ends)[unit]]
        key = _mixed(_hash(self.seed, turn)[unit], image)
        bits = rows.bit_length()
        key >>= np.uint64(len(run).bit_length())
        key &= ~np.uint64((1 << bits) - 1)
        key |= unit.astype(np.uint64) << np.uint64(64 - len(run).bit_length())
        key |= row
        key.sort()
        key &= np.uint64((1 << bits) - 1)

        start = turn * sizes - ends + sizes  # of each turn's rows, in the draws of its class
        kept = row.astype(np.int64) + start[unit]
        low = self._drawn[of_class]
        return np.asarray(image[key[(kept >= low[unit]) & (kept < (low + wanted[of_class])[unit])]])


class FrequencySampler(_ClassSampler):
    """Draws each class independently with the probability that `probabilities(counts, epoch)` gives it."""

    def __init__(self, labels: Indices, seed: int, probabilities: Callable[[Indices, int], Probabilities]) -> None:
        super().__init__(labels, seed)
        self._probabilities = probabilities

    def epoch(self, epoch: int) -> Indices:
        probabilities = self._probabilities(self._counts[self._classes], epoch)
        random = np.random.default_rng([self.seed, epoch])
        # How often each class comes, then in which order: together as if each draw had been made alone.
        times = random.multinomial(len(self.labels), probabilities / probabilities.sum())
        drawn = np.repeat(_compact(self._classes, len(self._counts)), times)
        random.shuffle(drawn)
        return self._draw(drawn)


class CycleSampler(_ClassSampler):
    """Visits all classes in a shuffled cycle and takes `per_visit` images of a class at each visit."""

    def __init__(self, labels: Indices, seed: int, per_visit: int) -> None:
        super().__init__(labels, seed)
        self.per_visit = per_visit
        self._position = 0

    def epoch(self, epoch: int) -> Indices:  # noqa: ARG002 - the cycle goes on over epochs
        drawn = np.empty(len(self.labels), dtype=np.min_scalar_type(len(self._counts)))
        for start in range(0, len(drawn), _PIECE):
            visit = (self._position + np.arange(start, min(start + _PIECE, len(drawn)))) // self.per_visit
            cycle = visit // len(self._classes)
            cycles = np.arange(cycle[0], cycle[-1] + 1)
            keys = _hash(self.seed, cycles[:, None], self._classes[None, :])
            order = self._classes[np.argsort(keys, axis=1)]
            drawn[start : start + _PIECE] = order[cycle - cycle[0], visit % len(self._classes)]
        images = self._draw(drawn)
        self._position += len(self.labels)
        return images

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


def _compact(indices: Indices, end: int) -> NDArray[Any]:
    """Whole numbers below `end` in as few bytes as hold them; NumPy sorts two bytes much faster, too."""
    return indices.astype(np.min_scalar_type(end))


def _hash(seed: int, *parts: Indices) -> NDArray[np.uint64]:
    """One well-mixed key for each row of integers, no state."""
    key = np.asarray(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    for part in parts:
        key = _mixed(key, part)
    return key


def _mixed(key: NDArray[np.uint64], part: NDArray[Any]) -> NDArray[np.uint64]:
    """A key and one more integer through Steele et al.'s SplitMix64 finaliser."""
    with np.errstate(over="ignore"):
        key = key ^ part.astype(np.uint64)
        key += np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(30)
        key *= np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(27)
        key *= np.uint64(0x94D049BB133111EB)
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
