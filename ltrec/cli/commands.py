"""The commands without a group: one for each stage, and `init`, `predict`, `run`, `seeds` and `sync`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ltrec.artifacts import Layout
from ltrec.cli.setup import LOOKS, PARAMS, enter_project, load_params
from ltrec.errors import UserError

if TYPE_CHECKING:
    from ltrec.config.params import Params

Format = Literal["table", "json", "csv"]
Profile = Annotated[bool, typer.Option("--profile", help="Write a trace, and a table of where the time goes.")]

_MODEL = Layout().onnx

app = typer.Typer(help="Long-tailed image classification by decoupled training.", **LOOKS)


def _version(wanted: bool) -> None:
    if wanted:
        from ltrec import __version__

        typer.echo(f"ltrec {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    *,
    params: Annotated[Path, typer.Option(metavar="FILE", help="Where the parameters are.")] = PARAMS,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from ltrec.console import Verbosity, set_verbosity

    if quiet and verbose:
        raise UserError("--quiet and --verbose exclude each other")
    set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.NORMAL)
    context.obj = params


def _recorded_params(context: typer.Context) -> Params:
    """Return the parameters for a stage that MLflow is told of: MLflow is imported while the stage imports torch."""
    from ltrec.stages import recording

    params = load_params(context)
    recording.make_ready(params)
    return params


@app.command()
def prepare(
    context: typer.Context,
    *,
    decode: Annotated[
        bool | None,
        typer.Option(
            "--decode/--no-decode", help="Whether to open the images. [default: from params.yaml]", show_default=False
        ),
    ] = None,
) -> None:
    """List the images, split them, cut the long tail.

    Without options it is the stage of params.yaml; with them something else, which DVC does not know.
    """
    params = load_params(context)
    from ltrec.stages import prepare

    prepare.run(params, decode=decode)


@app.command()
def represent(context: typer.Context, *, profile: Profile = False) -> None:
    """Train backbone and joint classifier.

    An interrupted training goes on after its last finished epoch.
    """
    params = _recorded_params(context)
    from ltrec.stages import represent

    represent.run(params, profile=profile)


@app.command()
def featurize(context: typer.Context, *, profile: Profile = False) -> None:
    """Store the features of every image."""
    params = _recorded_params(context)
    from ltrec.stages import featurize

    featurize.run(params, profile=profile)


@app.command()
def rebalance(
    context: typer.Context,
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="A name under rebalance in params.yaml.")],
) -> None:
    """Fit one variant's classifier on the features."""
    params = _recorded_params(context)
    from ltrec.stages import rebalance

    rebalance.run(params, variant)


@app.command()
def evaluate(context: typer.Context) -> None:
    """Compare all variants on the test split and name the champion."""
    params = _recorded_params(context)
    from ltrec.stages import evaluate

    evaluate.run(params)


@app.command()
def export(
    context: typer.Context,
    *,
    onnx: Annotated[bool, typer.Option("--onnx", help="The format; there is no other.", show_default=False)] = True,  # noqa: ARG001
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="A variant, or champion. [default: from params.yaml]")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None, typer.Option(help="Of the weights. [default: from params.yaml]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to. [default: the stage's file, or one named after the variant]"),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="uniform|train|FILE", help="Shares of the classes to answer for. [default: from params.yaml]"
        ),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Share of images to leave unanswered. [default: from params.yaml]"),
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(metavar="RATE", help="Leave as many unanswered as this share of wrong answers asks.")
    ] = None,
) -> None:
    """Write one checked ONNX file of a variant.

    Without options it is the stage of params.yaml; with them something else, which DVC does not know.
    """
    here = enter_project(context)
    output = output and here / output
    params = _recorded_params(context)
    from ltrec.cli import deployment
    from ltrec.stages import export

    export.run(
        params, variant=variant, precision=precision, output=output,
        prior=deployment.prior(prior, here), abstain=deployment.abstain(abstain, max_error),
    )  # fmt: skip


@app.command()
def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images, folders, or - for a list on stdin.")],
    *,
    model: Annotated[Path, typer.Option(metavar="FILE", help="What `ltrec export` wrote.")] = _MODEL,
    output_format: Annotated[Format, typer.Option("--format", help="Of the answer.")] = "table",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Classes to name for each image.")] = 5,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="NUL bytes separate the paths on stdin, as of `find -print0`.")
    ] = False,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="uniform|train|FILE|estimate",
            help="Shares of the classes to answer for; estimate: from these images. [default: the model's]",
        ),
    ] = None,
) -> None:
    """Classify images with an exported model."""
    from ltrec import project
    from ltrec.serving.predictor import run_predict

    run_predict(
        inputs,
        model=model if model != _MODEL or model.exists() else project.root() / model,
        output_format=output_format,
        top=top,
        null=null,
        prior=prior,
    )


@app.command()
def run(
    context: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Run all stages, also those that are up to date.")] = False,
) -> None:
    """Run all stages without DVC, but for those that are up to date."""
    params = load_params(context)
    from ltrec import running

    raise typer.Exit(running.run(params, context.find_root().obj, force=force))


@app.command()
def seeds(
    context: typer.Context,
    count: Annotated[
        int | None, typer.Argument(metavar="[N]", help="How many, from the seed of params.yaml on.", show_default=False)
    ] = None,
    *,
    listed: Annotated[
        str | None, typer.Option("--seeds", metavar="SEED,…", help="Which, in place of how many.", show_default=False)
    ] = None,
) -> None:
    """Train with several seeds and compare over them.

    What is finished does not run again. The project's own artifacts stay as they are.
    """
    params = load_params(context)
    from ltrec import seeds

    raise typer.Exit(seeds.run(params, seeds.chosen(params.seed, count, listed)))


@app.command()
def version(context: typer.Context) -> None:
    """Write which code is installed, for a project's dvc.yaml."""
    enter_project(context)
    from ltrec import pipeline

    pipeline.write_digests()


@app.command()
def sync(context: typer.Context) -> None:
    """Send MLflow what could not be sent before."""
    enter_project(context)
    from ltrec import tracking

    tracking.sync()


@app.command()
def init(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="A name that --list shows.")] = None,
    *,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of your own images, for the recipe folder. [default: data]")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="The network, where the recipe offers some.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME", help="The network's weights or their file, for the recipe folder.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(metavar="NAME", help="Where the recipe offers some.")] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Where the recipe offers some.")] = None,
    imbalance_factor: Annotated[str | None, typer.Option(metavar="N", help="Where the recipe offers some.")] = None,
    strong: Annotated[
        bool, typer.Option("--strong", help="What wins, not what was published, where the recipe offers it.")
    ] = False,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the parameters alone.")] = PARAMS,
    show: Annotated[bool, typer.Option("--list", help="Show the recipes, with the figures they aim at.")] = False,
) -> None:
    """Begin a project: parameters, pipeline, Git and DVC.

    Where a dvc.yaml of ltrec lies already, only the parameters are written.
    """
    from ltrec import console
    from ltrec.config import recipes

    if show:
        console.show(recipes.table())
        return
    if recipe is None:
        raise UserError("name a recipe; `ltrec init --list` shows them", where="init")
    from ltrec import scaffold

    options = {
        "data": data, "backbone": backbone, "weights": weights, "sampler": sampler, "epochs": epochs,
        "imbalance_factor": imbalance_factor, "strong": "yes" if strong else None,
    }  # fmt: skip
    scaffold.begin(recipe, {option: value for option, value in options.items() if value is not None}, output)
