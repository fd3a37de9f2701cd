"""Params files to begin with: the settings of published experiments, and of the sample images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

Choice = Mapping[str, str]

OWN_IMAGES = "folder"
"""The name of what is no recipe: parameters that are chosen by what is in a folder (`ltrec.scaffold`)."""
_SAMPLERS = ("instance_balanced", "class_balanced", "square_root", "progressively_balanced")
_SWITCH = ("no", "yes")
"""The values of an option that is a switch on the command line: off, on."""
_RESNEXT = "resnext50_32x4d"
_PAPER = "Kang et al. 2020"


class _Template(Template):
    delimiter = "@"  # `$` stands in the editors' `$schema`


@dataclass(frozen=True)
class Aim:
    """Published top-1 accuracies of one choice of a recipe's options, in per cent."""

    choice: Choice
    figures: Mapping[str, float]
    """The accuracy of each method."""
    source: str


@dataclass(frozen=True)
class Recipe:
    """One params file, some of whose values are chosen by name."""

    name: str
    about: str
    template: str
    """The file beside this one."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What may be chosen, with the allowed values; the first is the default."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """What else the template asks for."""
    strong: Mapping[str, str] = field(default_factory=dict)
    """What the option `strong` has in place of `fixed`: what wins, rather than what was published."""
    aims: tuple[Aim, ...] = ()

    def text(self, choice: Choice) -> str:
        """Return the params file for a choice of options; what is not chosen takes its default.

        Raises:
            UserError: The choice has an option that the recipe does not have, or a value that it does not allow.
        """
        for option, value in choice.items():
            if option not in self.options:
                known = ", ".join(map(_flag, self.options)) or "none"
                raise UserError(f"the recipe {self.name} has no such option; allowed: {known}", where=_flag(option))
            if value not in self.options[option]:
                allowed = ", ".join(self.options[option])
                what = f"{value} is nothing that the recipe {self.name} has; allowed: {allowed}"
                raise UserError(what, where=_flag(option))
        defaults = {option: values[0] for option, values in self.options.items()}
        strong = self.strong if choice.get("strong") == "yes" else {}
        template = resources.files(__name__).joinpath(self.template).read_text(encoding="utf-8")
        return _Template(template).substitute({**self.fixed, **strong, **defaults, **choice})


def _cifar(classes: int, *, n_max: str, val: str, cutout: str, smoothing: str, **figures: float) -> Recipe:
    return Recipe(
        f"cifar{classes}-lt",
        f"CIFAR-{classes}-LT, ResNet-32",
        "cifar-lt.yaml",
        options={"imbalance_factor": ("100", "50", "10"), "strong": _SWITCH},
        fixed={
            "kind": f"cifar{classes}",
            "title": f"CIFAR-{classes}",
            "n_max": n_max,
            "val": val,
            "smoothing": smoothing,
            "settings": "as most of the literature trains it",
            "policy": "null",
            "erase": "null",
            "loss": "{name: cross_entropy}",
        },
        strong={
            "settings": "with the VS loss (Kini et al. 2021), AutoAugment and Cutout, as its best figures have them",
            "policy": "{name: auto_augment, policy: cifar10, fill: 128}",
            "erase": f"{{name: cutout, size: {cutout}}}",
            "loss": "{name: vector_scaling, gamma: 0.05, tau: 1.0}",
        },
        aims=(Aim({"imbalance_factor": "100", "strong": "no"}, figures, "as later papers report it"),),
    )


RECIPES = (
    Recipe("digits", "handwritten digits cut to a long tail, in a minute on a CPU", "digits.yaml"),
    _cifar(
        10, n_max="5000", val="100", cutout="16", smoothing="head: 0.3, tail: 0.0",
        joint=70.4, tau_norm=72.7, lws=72.6, crt=75.0,
    ),
    _cifar(
        100, n_max="500", val="10", cutout="8", smoothing="head: 0.4, tail: 0.1",
        joint=38.3, tau_norm=41.0, lws=40.2, crt=40.3,
    ),
    Recipe(
        "imagenet-lt",
        "ImageNet-LT, 90 epochs",
        "imagenet-lt.yaml",
        options={
            "backbone": (
                _RESNEXT, "resnext101_32x4d", "resnext152_32x4d",
                "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
            ),
            "sampler": _SAMPLERS,
        },
        aims=(
            Aim(
                {"backbone": _RESNEXT, "sampler": "instance_balanced"},
                {"joint": 44.4, "ncm": 47.3, "crt": 49.6, "tau_norm": 49.4, "lws": 49.9},
                _PAPER,
            ),
            Aim({"backbone": _RESNEXT, "sampler": "class_balanced"}, {"joint": 45.1}, _PAPER),
            Aim({"backbone": _RESNEXT, "sampler": "square_root"}, {"joint": 46.8}, _PAPER),
            Aim({"backbone": _RESNEXT, "sampler": "progressively_balanced"}, {"joint": 47.2}, _PAPER),
        ),
    ),
    Recipe(
        "places-lt",
        "Places-LT, the last block of a pretrained ResNet-152",
        "places-lt.yaml",
        aims=(Aim({}, {"joint": 30.2, "ncm": 36.4, "crt": 36.7, "tau_norm": 37.9, "lws": 37.6}, _PAPER),),
    ),
    Recipe(
        "inat18",
        "iNaturalist 2018, 8142 classes",
        "inat18.yaml",
        options={"backbone": ("resnet50", "resnet101", "resnet152"), "epochs": ("90", "200")},
    ),
)  # fmt: skip


def find(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UserError: There is none.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    if name not in by_name:
        raise UserError(f"no recipe of that name: {name}; allowed: {', '.join([OWN_IMAGES, *by_name])}", where="init")
    return by_name[name]


def table() -> Table:
    """Return all recipes with their options, the default first, and the figures that they aim at."""
    from rich.table import Table

    shown = Table.grid(padding=(0, 2, 1, 0))
    shown.add_row(
        f"[bold]{OWN_IMAGES}[/bold]",
        "your own images: what fits them, each choice with its reason\n"
        "--data FOLDER  --backbone NAME  --weights NAME|FILE  --epochs N",
    )
    for recipe in RECIPES:
        options = [
            _flag(option) + ("" if allowed is _SWITCH else f" {' | '.join(allowed)}")
            for option, allowed in recipe.options.items()
        ]
        aims = [f"published top-1: {_aim(aim)}" for aim in recipe.aims]
        shown.add_row(f"[bold]{recipe.name}[/bold]", "\n".join([recipe.about, *options, *aims]))
    return shown


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _aim(aim: Aim) -> str:
    figures = ", ".join(f"{method} {value}" for method, value in aim.figures.items())
    choice = " ".join(value for value in aim.choice.values() if value not in _SWITCH)
    return f"{figures} ({', '.join(part for part in (choice, aim.source) if part)})"
