"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ltrec.errors import UserError
from ltrec.settings import Count, PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

# Within what a float32 holds.
LearningRate = Annotated[float, Field(gt=0, le=1e38)]
WeightDecay = Annotated[float, Field(ge=0, le=1e38)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
MaxNorm = Annotated[float, Field(gt=0, le=1e38)]


class SgdRecipe(Settings):
    """The figures of stochastic gradient descent with momentum."""

    lr: LearningRate = 0.1
    """The highest learning rate: that of the first step, or that at the end of the warm-up."""
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 5e-4


class _Rates(Settings):
    """What parameters are told apart by: the classifier's, those at a depth, and those that are no matrices."""

    head_lr: LearningRate | None = None
    """The classifier's own learning rate; null: the backbone's."""
    head_weight_decay: WeightDecay | None = None
    """The classifier's own weight decay; null: the backbone's."""
    head_max_norm: MaxNorm | None = None
    """Largest norm of a class's weights w_j in the classifier; longer ones are cut to it after each update (MaxNorm,
    Alshammari et al. 2022). null: any."""
    sam_rho: Annotated[float, Field(gt=0, le=100)] | None = None
    """ρ of sharpness-aware minimisation (Foret et al. 2021): the gradient is taken where the loss is worst within ρ of
    the weights. Each update computes two gradients, one after another, and takes twice as long. null: plain updates."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Layer-wise decay: the learning rate is multiplied by it once for each part from the backbone's last down to the
    parameter's, parts as in `freeze: {by: depth}`; a top norm has the whole rate. null: all parts have the same."""
    decay_all: bool = True
    """Let weight decay shrink all parameters; false, as transformers are trained: not biases, norms, scales, tokens and
    embeddings."""

    def constraint(self, head: nn.Module) -> Callable[[], None] | None:
        """Return what brings a head's weights (C, D) back to where they may be after an update; None: nothing does."""
        if self.head_max_norm is None:
            return None
        return row_limit([head], self.head_max_norm)


class Sgd(_Rates, SgdRecipe):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    nesterov: bool = False
    """Nesterov's momentum, which looks one step ahead."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, got 0")
        return self

    def build(self, backbone: nn.Module, head: nn.Module) -> Optimizer:
        """Return the optimizer of those parameters that require a gradient."""
        import torch

        parameters = groups(backbone, head, self.lr, self)
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
            nesterov=self.nesterov, fused=_on_gpu(parameters),
        )  # fmt: skip
        if self.momentum:
            # The fused kernel makes the buffers, but leaves them unfilled where fp16 skips the first update.
            for parameter in (parameter for group in parameters for parameter in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer


class AdamW(_Rates):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    weight_decay: WeightDecay = 1e-2

    def build(self, backbone: nn.Module, head: nn.Module) -> Optimizer:
        """Return the optimizer of those parameters that require a gradient."""
        import torch

        parameters = groups(backbone, head, self.lr, self)
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=_on_gpu(parameters)
        )


OptimizerSettings = Annotated[Sgd | AdamW, Field(discriminator="name")]


def groups(backbone: nn.Module, head: nn.Module, lr: float, rates: _Rates) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups, the backbone's from its top down, then a head with rates of its own.

    A parameter at depth d has the learning rate lr·layer_decay^d (Clark et al. 2020; Bao et al. 2022), the head that of
    depth 0. Parameters that require no gradient are left out: weight decay would move them, too.
    """
    from ltrec.models.depth import depths

    depth_of = (lambda _: 0) if rates.layer_decay is None else depths(backbone).of
    decay = rates.layer_decay or 1.0
    # By a group's place: whether it is a head with rates of its own, the depth, whether weights are spared the decay.
    members: dict[tuple[bool, int, bool], list[Parameter]] = {}
    for module in (backbone, head):
        own = module is head and (rates.head_lr is not None or rates.head_weight_decay is not None)
        spared = set[int]() if rates.decay_all else _no_matrices(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                depth = depth_of(name) if module is backbone else 0
                members.setdefault((own, depth, id(parameter) in spared), []).append(parameter)
    found = []
    for (own, depth, is_spared), parameters in sorted(members.items(), key=lambda member: member[0]):
        rate = rates.head_lr if own and rates.head_lr is not None else lr * decay**depth
        weight_decay = 0.0 if is_spared else rates.head_weight_decay if own else None
        found.append(
            {"params": parameters, "lr": rate} | ({} if weight_decay is None else {"weight_decay": weight_decay})
        )
    return found


def row_limit(heads: Sequence[nn.Module], most: float) -> Callable[[], None]:
    """Return what cuts each row of the heads' trained weights W (C, D) to a norm of at most `most`, in place.

    MaxNorm of Alshammari et al. 2022, equation 6.

    Raises:
        UserError: The heads train no such weights.
    """
    import torch

    named = [(name, parameter) for head in heads for name, parameter in head.named_parameters()]
    weights = [each for name, each in named if name.rpartition(".")[2] == "weight" and each.requires_grad]
    if not weights:
        raise UserError("max_norm bounds the rows of W, and of this head none train; allowed here: null")

    def cut() -> None:
        with torch.no_grad():
            for weight in weights:
                weight.renorm_(2, 0, most)

    return cut


def _no_matrices(module: nn.Module) -> set[int]:
    """Return the ids of the parameters that are not the weights of products and convolutions."""
    from torch import nn

    of_embeddings = {
        id(parameter)
        for embedding in module.modules()
        if isinstance(embedding, nn.Embedding)
        for parameter in embedding.parameters()
    }
    vectors = {
        id(parameter)
        for name, parameter in module.named_parameters()
        if parameter.ndim < 2 or not name.endswith("weight")
    }
    return of_embeddings | vectors


def _on_gpu(parameters: list[dict[str, Any]]) -> bool:
    """Return whether all parameters are on a GPU, where a fused kernel is faster; on a CPU it is not."""
    return all(parameter.is_cuda for group in parameters for parameter in group["params"])


class _Schedule(Settings):
    """A factor on each group's learning rate, set anew after every update; in the warm-up it rises linearly from 0."""

    warmup_epochs: Count = 0
    """Epochs of a linear rise to the learning rate, before the schedule proper."""

    def check(self, epochs: int) -> None:
        """Raise ValueError if a training of `epochs` epochs is too short for it."""
        if self.warmup_epochs >= epochs:
            raise ValueError(f"warms up for {self.warmup_epochs} epochs; warmup_epochs must be below epochs ({epochs})")

    def shape(self, step: int, *, epochs: int, steps: int) -> float:
        """Return the factor at an update after the warm-up; `step` counts from the training's first."""
        raise NotImplementedError

    def factor(self, step: int, *, epochs: int, steps: int) -> float:
        """Return the factor at an update, counted from 0, of `epochs` epochs of `steps` updates each."""
        warmup = self.warmup_epochs * steps
        return (step + 1) / warmup if step < warmup else self.shape(step, epochs=epochs, steps=steps)

    def build(self, optimizer: Optimizer, *, epochs: int, steps: int) -> LRScheduler:
        """Return the schedule of an optimizer over `epochs` epochs of `steps` updates each."""
        import torch

        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, epochs=epochs, steps=steps))


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate to 0 (Loshchilov & Hutter 2017)."""

    name: Literal["cosine"] = "cosine"

    def shape(self, step: int, *, epochs: int, steps: int) -> float:
        warmup = self.warmup_epochs * steps
        return cosine(step - warmup, epochs * steps - warmup)


def _rising(milestones: list[int]) -> list[int]:
    if milestones != sorted(set(milestones)):
        raise ValueError(f"milestones must rise, got {milestones}")
    return milestones


class StepSchedule(_Schedule):
    """The learning rate times `gamma` at each milestone."""

    name: Literal["step"] = "step"
    milestones: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_rising)]
    """Epochs after which the learning rate falls, those of the warm-up counted too."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _warm_before_the_first(self) -> Self:
        if self.milestones[0] <= self.warmup_epochs:
            raise ValueError(
                f"milestones must come after the warm-up ({self.warmup_epochs} epochs), got {self.milestones}"
            )
        return self

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if self.milestones[-1] >= epochs:
            raise ValueError(f"has a milestone at {self.milestones[-1]}; all must be below epochs ({epochs})")

    def shape(self, step: int, *, epochs: int, steps: int) -> float:  # noqa: ARG002 - one signature
        return self.gamma ** bisect_right(self.milestones, step // steps)


ScheduleSettings = Annotated[CosineSchedule | StepSchedule, Field(discriminator="name")]


def cosine(step: int, steps: int) -> float:
    """Return ½(1 + cos(π·step/steps)): 1 at the first of `steps` updates, 0 after the last."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
