"""Every recipe with every choice of its options: valid, complete for DVC, and fit to train."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ruamel.yaml import YAML

from ltrec.config import params, recipes
from tests.commands import ltrec

if TYPE_CHECKING:
    from ltrec.config.params import Params
    from ltrec.config.recipes import Recipe

ROOT = Path(__file__).parents[2]


def choices(recipe: Recipe) -> list[dict[str, str]]:
    """Every combination of a recipe's options."""
    return [dict(zip(recipe.options, values, strict=True)) for values in itertools.product(*recipe.options.values())]


ALL = [
    pytest.param(recipe, choice, id="-".join([recipe.name, *choice.values()]))
    for recipe in recipes.RECIPES
    for choice in choices(recipe)
]
# The sampler and the number of epochs change no network.
NETWORKS = [
    pytest.param(recipe, choice, id="-".join([recipe.name, *choice.values()]), marks=pytest.mark.slow)
    for recipe in recipes.RECIPES
    for choice in choices(recipe)
    if all(choice[option] == allowed[0] for option, allowed in recipe.options.items() if option != "backbone")
]


def of(recipe: Recipe, choice: dict[str, str]) -> Params:
    return params.parse(recipe.text(choice), recipe.name)


@pytest.mark.parametrize(("recipe", "choice"), ALL)
def test_it_is_valid_and_says_what_was_chosen(recipe: Recipe, choice: dict[str, str]) -> None:
    settings = of(recipe, choice)
    assert settings.represent.backbone.name == choice.get("backbone", settings.represent.backbone.name)
    assert settings.represent.sampler.name == choice.get("sampler", settings.represent.sampler.name)
    assert settings.represent.epochs == int(choice.get("epochs", settings.represent.epochs))
    cut = settings.prepare.long_tail
    if "imbalance_factor" in choice:
        assert cut is not None
        assert cut.imbalance_factor == int(choice["imbalance_factor"])
    assert {"joint", "ncm", "crt", "tau_norm", "lws"} <= set(settings.rebalance)


@pytest.mark.parametrize(("recipe", "choice"), ALL)
def test_dvc_finds_every_parameter_that_a_stage_depends_on(recipe: Recipe, choice: dict[str, str]) -> None:
    yaml = YAML(typ="safe")
    given = yaml.load(recipe.text(choice))
    for stage in yaml.load(ROOT / "dvc.yaml")["stages"].values():
        for path in stage.get("params", stage.get("do", {}).get("params", ())):
            place = given
            for key in path.replace("${key}", "joint").split("."):
                assert key in place, path
                place = place[key]


@pytest.mark.parametrize(("recipe", "choice"), NETWORKS)
def test_its_network_takes_a_step(recipe: Recipe, choice: dict[str, str]) -> None:
    import torch

    from ltrec.models import network
    from ltrec.models.backbones import feature_dim
    from ltrec.training import loop as training

    classes = {"imagenet-lt": 1000, "places-lt": 365, "inat18": 8142, "cifar100-lt": 100}.get(recipe.name, 10)
    settings = of(recipe, choice).represent
    image = settings.preprocessing()
    size = image.geometry.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # As `network.build`, without fetching pretrained weights.
        body = settings.backbone.build(size, pretrained=False)
        head = settings.head.build(classes, feature_dim(body, size, settings.backbone.name))
        built = network.Network(body, head, image.geometry, image.mean, image.std)
        if settings.freeze is not None:
            built.freeze(settings.freeze.frozen(body))
        optimizer = settings.optimizer.build(body, head)
        images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
        before = copy.deepcopy(head.state_dict())
        done: list[float] = []
        training.train(
            built,
            settings.loss.build(np.ones(classes, dtype=np.int64), head.cosine_scale),
            lambda _epoch: [(images, torch.tensor([0, classes - 1]))],
            optimizer,
            settings.schedule.build(optimizer, epochs=settings.epochs, steps=1),
            epochs=range(1),
            batch_size=2,
            seed=0,
            on_epoch=lambda report: done.append(report.loss),
        )
    assert len(done) == 1
    assert not torch.equal(head.state_dict()["weight"], before["weight"])


def test_the_digits_are_the_projects_own_params() -> None:
    assert recipes.find("digits").text({}) == (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cifar"], "no recipe of that name: cifar; allowed: folder, digits, cifar10-lt"),
        (["digits", "--epochs", "3"], "--epochs: the recipe digits has no such option; allowed: none"),
        (
            ["inat18", "--epochs", "3"],
            "--epochs: 3 is nothing that the recipe inat18 has; allowed: 90, 200",
        ),
        ([], "name a recipe; `ltrec init --list` shows them"),
    ],
)
def test_a_wrong_name_is_explained(arguments: list[str], line: str, tmp_path: Path) -> None:
    done = ltrec("init", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert line in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_list_shows_every_recipe_with_its_published_figures(tmp_path: Path) -> None:
    done = ltrec("init", "--list", cwd=tmp_path)
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    for recipe in recipes.RECIPES:
        assert recipe.name in words
        for aim in recipe.aims:
            assert ", ".join(f"{method} {value}" for method, value in aim.figures.items()) in words
