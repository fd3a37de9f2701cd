"""How complex a rebalancing method is: what decides where two variants are as good as each other on val."""

from __future__ import annotations

from enum import IntEnum


class Complexity(IntEnum):
    """From simple to complex, by what went into a head beyond the training of the network.

    A method's settings class carries its own as `complexity`.
    """

    AS_TRAINED = 0
    """Nothing: the classifier that the network was trained with, or that was published."""
    COMPUTED = 1
    """Statistics of the features, or a few numbers chosen on val: nothing is drawn, no learning rate is needed."""
    TRAINED = 2
    """A training of its own, with a seed, learning rate and epochs."""
    COMBINED = 3
    """Several heads."""
