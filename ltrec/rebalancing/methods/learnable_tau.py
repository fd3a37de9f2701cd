"""τ-normalisation with τ fitted by gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Tau
from ltrec.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

_IMAGES_AT_ONCE = 4096


class LearnableTauSettings(Settings):
    """w_j / ‖w_j‖^τ without bias; τ is fitted on val by gradient, together with a temperature."""

    method: Literal["learnable_tau"]
    bounds: tuple[Tau, Tau] = (0.0, 2.0)
    """The smallest and the largest τ; the search starts halfway. The default is the range of the paper's grid."""

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"bounds must be [smallest, largest], got {list(self.bounds)}")
        return self

    def build(self, seed: int) -> LearnableTau:  # noqa: ARG002 - nothing is random
        return LearnableTau(self.bounds)


class LearnableTau(Rebalancer):
    """The τ and temperature T that minimise the cross-entropy of w_j·x / (T·‖w_j‖^τ) on val.

    Cross-entropy depends on the scale of the logits, and τ changes it along with the balance between the classes:
    alone, τ would be fitted to how sure the classifier ought to be. T takes that over, so that τ answers only for
    which class wins. Each class of val counts the same, as in the balanced accuracy that all else is chosen by.
    """

    def __init__(self, bounds: tuple[float, float]) -> None:
        self.bounds = bounds

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:  # noqa: ARG002
        from ltrec.models.heads import LinearHead, linear_of, logits_of, tau_normalised
        from ltrec.rebalancing.selection import balanced_accuracy, calibrated

        weight = linear_of(joint).weight.detach()
        # As on τ's grid: columns of one product are rescaled.
        tau = self._search(logits_of(LinearHead(weight, None), val.plain), weight.norm(dim=1), val.labels)
        head = LinearHead(tau_normalised(weight, tau), None)
        logits = logits_of(head, val.plain)
        temperature, _ = calibrated(logits, val.labels)
        head.temperature.fill_(temperature)
        return FitResult(
            head,
            {"tau": tau, "temperature": temperature},
            [{"tau": tau, "val": balanced_accuracy(logits, val.labels)}],
        )

    def _search(self, product: Tensor, norms: Tensor, labels: Tensor) -> float:
        """The best τ for w_j·x (N, C) and ‖w_j‖ (C,): L-BFGS-B over τ and log T, with PyTorch's gradients, in float64.

        Raises:
            UserError: the logits to start from are not finite.
        """
        import torch
        import torch.nn.functional as F
        from scipy.optimize import minimize

        from ltrec.rebalancing.selection import calibrated

        start = sum(self.bounds) / 2
        temperature, _ = calibrated(product / norms**start, labels)
        log_norms = norms.double().log()
        counts = labels.bincount(minlength=len(norms)).double()
        share = torch.where(counts > 0, 1 / counts, 0.0) / (counts > 0).sum()

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(point).to(product.device).requires_grad_()
            total = 0.0
            for first in range(0, len(labels), _IMAGES_AT_ONCE):
                some = slice(first, first + _IMAGES_AT_ONCE)
                logits = product[some].double() * torch.exp(-at[0] * log_norms - at[1])
                loss = F.cross_entropy(logits, labels[some], weight=share, reduction="sum")
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            assert at.grad is not None
            return total, at.grad.cpu().numpy()

        # T is bounded too: where val is told apart without a mistake, the colder the better.
        log_t = math.log(temperature)
        found = minimize(
            objective, [start, log_t], jac=True, method="L-BFGS-B", bounds=[self.bounds, (log_t - 5, log_t + 5)]
        )
        return float(found.x[0])
