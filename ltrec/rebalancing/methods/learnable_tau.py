"""τ-normalisation with τ fitted by gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row, Tau

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

_IMAGES_AT_ONCE = 4096


class LearnableTauSettings(Adjustable):
    """w_j / ‖w_j‖^τ without bias; τ is fitted on val by gradient, together with a temperature."""

    complexity: ClassVar = Complexity.COMPUTED
    needs_linear_joint: ClassVar[bool] = True

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


@dataclass(frozen=True)
class LearnableTau(Rebalancer):
    """Finds the τ and temperature T that minimise the cross-entropy of w_j·x / (T·‖w_j‖^τ) on val.

    τ changes the scale of the logits along with the balance between the classes: alone, it would be fitted to how sure
    the classifier ought to be. T takes that over, so that τ answers only for which class wins. Each class of val counts
    the same, as in the balanced accuracy that all else is chosen by.
    """

    bounds: tuple[float, float]

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:  # noqa: ARG002
        from ltrec.models.heads import logits_of
        from ltrec.models.heads.linear import LinearHead, linear_of, tau_normalised
        from ltrec.rebalancing.selection import ScoredLogits, head_logits

        weight = linear_of(joint).weight.detach()
        # All τ share the product w_j·x.
        products = logits_of(LinearHead(weight, None).to(weight.device), val.plain)
        tau = self._search(products, weight.norm(dim=1), val.labels)
        head = LinearHead(tau_normalised(weight, tau), None).to(weight.device)
        curve: list[Row] = [{"tau": tau, "val": ScoredLogits(head_logits(head, val.plain), val.labels).balanced}]
        return FitResult(head, {"tau": tau}, curve)

    def _search(self, product: Tensor, norms: Tensor, labels: Tensor) -> float:
        """Return the best τ for products w_j·x (N, C) and norms ‖w_j‖ (C,).

        L-BFGS-B searches over τ and log T in float64, with PyTorch's gradients.

        Raises:
            UserError: The logits to start from are not finite.
        """
        import torch
        import torch.nn.functional as F
        from scipy.optimize import minimize

        from ltrec.rebalancing.selection import fit_temperature

        start = sum(self.bounds) / 2
        temperature, _ = fit_temperature(product / norms**start, labels)
        log_norms = norms.double().log()
        counts = labels.bincount(minlength=len(norms)).double()
        class_weights = torch.where(counts > 0, 1 / counts, 0.0) / (counts > 0).sum()

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            tau_and_log_t = torch.from_numpy(point).to(product.device).requires_grad_()
            total = 0.0
            for block, block_labels in zip(
                torch.split(product, _IMAGES_AT_ONCE), torch.split(labels, _IMAGES_AT_ONCE), strict=True
            ):
                logits = block.double() * torch.exp(-tau_and_log_t[0] * log_norms - tau_and_log_t[1])
                loss = F.cross_entropy(logits, block_labels, weight=class_weights, reduction="sum")
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            assert tau_and_log_t.grad is not None
            return total, tau_and_log_t.grad.cpu().numpy()

        # T is bounded too: where val is told apart without a mistake, the colder the better.
        log_t = math.log(temperature)
        bounds = [self.bounds, (log_t - 5, log_t + 5)]
        return float(minimize(objective, [start, log_t], jac=True, method="L-BFGS-B", bounds=bounds).x[0])
