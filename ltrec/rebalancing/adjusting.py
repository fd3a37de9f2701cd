"""Taking what is left of the training prior out of any fitted head. N images, C classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from ltrec.errors import UserError
from ltrec.rebalancing.class_counts import log_prior
from ltrec.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.selection import LogitBlocks

_SMALL_P = 1e-4  # the weight of p²/2: where all classes are nearly of one size, any p would do
_TOLERANCE, _MOST_STEPS, _MOST_HALVINGS = 1e-6, 50, 30


class Adjustable(Settings):
    """What a method's settings say besides the method's own."""

    needs_linear_joint: ClassVar[bool] = False
    """Whether it works on the w_j of a linear joint head."""

    adjust: bool = False
    """Take out of the fitted head what it still has of the training prior: z − p·log π, with p fitted on val together
    with the temperature. Where a network knows its training images by heart, their features no longer show how rare
    classes of new images are taken for frequent ones, and every classifier that is fitted on them corrects too little.
    false: the method as it was published."""


def calibrated(head: Head, train_labels: Tensor, val: FeatureBank, *, adjust: bool) -> tuple[Head, dict[str, float]]:
    """Return a fitted head whose probabilities fit val, `adjusted` first if asked, and what was chosen for it.

    Raises:
        UserError: As `adjusted` and `calibrate` do.
    """
    from ltrec.rebalancing.head_figures import calibrate

    if not adjust:
        return head, {"temperature": calibrate(head, val)}
    head, p = adjusted(head, train_labels, val)
    return head, {"prior": p, "temperature": float(head.temperature)}


def adjusted(head: Head, train_labels: Tensor, val: FeatureBank) -> tuple[Head, float]:
    """Return a head that answers for equal priors, with its temperature, and the p of the z − p·log π that it took.

    p and the temperature T maximise the likelihood of val under softmax(z/T − p·log π), in which each class of val
    counts the same and, beside its images, a few of any class, as for `calibrate`.

    Args:
        head: Any head; it stays as it is.
        train_labels: Of the training images, (N,).
        val: The features and labels to fit on; only the plain view is used.

    Raises:
        UserError: A class has no training image or none in val, or the logits on val are not finite.
    """
    from ltrec.rebalancing.head_figures import ANY_CLASS
    from ltrec.rebalancing.selection import head_logits

    device = head.temperature.device
    log_pi = log_prior(train_labels, head.classes, method="adjust").to(device)
    labels = val.labels.to(device)
    in_val = labels.bincount(minlength=head.classes)
    if not in_val.all():
        # Likelihood would have such a class predicted never.
        raise UserError(
            f"adjust needs val images of every class, and class {int(in_val.argmin())} (counted from 0) has none;"
            " allowed here: adjust: false"
        )
    smoothing = ANY_CLASS / (len(labels) + ANY_CLASS)
    sharpness, p = fit_prior(head_logits(head, val.plain), labels, log_pi, smoothing)
    head = head.shifted(-p / sharpness * log_pi)
    head.temperature.div_(sharpness)
    head.prior_power = 0.0
    return head, p


def fit_prior(logits: LogitBlocks, labels: Tensor, log_pi: Tensor, smoothing: float) -> tuple[float, float]:
    """Return the a and p at which softmax(a·z − p·log π) fits the labels best, each class counting the same.

    The negative log-likelihood is convex in a and p. For r = softmax − target and with expectations under the softmax,
    its gradient is (Σ r·z, −Σ r·log π), its Hessian has Var[z], Var[log π] and −Cov[z, log π]; Newton's steps are
    halved until they descend.

    Args:
        logits: z, (N, C).
        labels: (N,).
        log_pi: log π, (C,).
        smoothing: ε; each label counts as 1 − ε of itself and ε / C of every class, so that there is a best a.
    """
    import torch

    from ltrec.rebalancing.selection import fit_temperature

    counts = labels.bincount(minlength=len(log_pi)).double()
    weights = (1 / counts)[labels] / len(counts)

    def at(point: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return the likelihood, its gradient (2,) and its Hessian (2, 2)."""
        nll, gradient, hessian = 0.0, point.new_zeros(2), point.new_zeros(2, 2)
        start = 0
        for z in logits:
            rows = slice(start, start := start + len(z))
            terms, slopes, curves = _of_images(z, labels[rows], log_pi, point, smoothing)
            nll += float(weights[rows] @ terms)
            gradient += (weights[rows] @ slopes).cpu()
            hessian += (weights[rows] @ curves).view(2, 2).cpu()
        p = float(point[1])
        small = torch.tensor([0.0, _SMALL_P], dtype=torch.float64)
        return nll + _SMALL_P * p**2 / 2, gradient + small * p, hessian + small.diag()

    start, _ = fit_temperature(logits, labels, smoothing=smoothing)
    point = torch.tensor([1 / start, 0.0], dtype=torch.float64)
    nll, gradient, hessian = at(point)
    for _ in range(_MOST_STEPS):
        # Logits that are all the same have no sharpness: the least of steps is taken where the Hessian is singular.
        step = torch.linalg.lstsq(hessian, gradient, driver="gelsd").solution
        expected = float(gradient @ step)
        if not math.isfinite(expected) or expected < _TOLERANCE * max(nll, _TOLERANCE):
            break
        for halving in range(_MOST_HALVINGS):
            tried = point - step / 2**halving
            if tried[0] > 0 and (found := at(tried))[0] < nll:
                point, (nll, gradient, hessian) = tried, found
                break
        else:
            break
    return float(point[0]), float(point[1])


def _of_images(
    z: Tensor, labels: Tensor, log_pi: Tensor, point: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each image the likelihood (n,), its gradient (n, 2) and its Hessian, flattened, (n, 4), in float64."""
    import torch

    a, p = point.tolist()
    adjusted_logits = a * z - p * log_pi
    probabilities = adjusted_logits.softmax(dim=1)
    prior = log_pi.expand_as(z)

    def target(values: Tensor) -> Tensor:
        own = values.gather(1, labels[:, None])[:, 0]
        return torch.lerp(own, values.mean(dim=1), smoothing)

    mean_z, mean_prior = torch.linalg.vecdot(probabilities, z), probabilities @ log_pi
    from_z, from_prior = z - mean_z[:, None], prior - mean_prior[:, None]
    covariance = -torch.linalg.vecdot(probabilities * from_z, from_prior)
    nll = adjusted_logits.logsumexp(dim=1) - target(adjusted_logits)
    slopes = torch.stack([mean_z - target(z), target(prior) - mean_prior], dim=1)
    curves = [
        torch.linalg.vecdot(probabilities * from_z, from_z), covariance,
        covariance, torch.linalg.vecdot(probabilities * from_prior, from_prior),
    ]  # fmt: skip
    return nll.double(), slopes.double(), torch.stack(curves, dim=1).double()
