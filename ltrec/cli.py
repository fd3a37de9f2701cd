"""The `ltrec` command: one thin command for each stage, plus data, params, checkpoint, features, predict and sync.

Heavy imports happen inside the command that needs them, so that help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from ltrec.artifacts import Layout, Split
from ltrec.errors import UserError

if TYPE_CHECKING:
    from ltrec.params import Params

Format = Literal["table", "json", "csv"]

_PARAMS, _MODEL = Path("params.yaml"), Layout().onnx
_CHECKPOINT = Path("final_model_checkpoint.pth")  # as the research code calls it
_USAGE, _INTERRUPTED = 2, 130
# A full or read-only disk, or something else where a file or a folder should be.
_OF_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer does not export its own base

_GLOBAL = frozenset({"--params", "--quiet", "-q", "--verbose", "-v", "--version"})
_SETUP = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
app = typer.Typer(help="Long-tailed image classification by decoupled training.", **_SETUP)  # type: ignore[arg-type]
data_app = typer.Typer(help="Sample data and benchmarks.", **_SETUP)  # type: ignore[arg-type]
checkpoint_app = typer.Typer(help="Read and write the research code's checkpoints.", **_SETUP)  # type: ignore[arg-type]
features_app = typer.Typer(help="Read the research code's feature dumps.", **_SETUP)  # type: ignore[arg-type]
params_app = typer.Typer(help="Check params.yaml, and describe it to editors.", **_SETUP)  # type: ignore[arg-type]


def main() -> NoReturn:
    """Run the command line and exit: 0, 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM."""
    from ltrec import console, process

    process.share_cores()
    process.end_in_order_on_sigterm()
    if "DVC_STAGE" in os.environ:
        process.die_with_parent()
    try:
        code = typer.main.get_command(app).main(prog_name="ltrec", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        _explain(error)
        code = _USAGE
    except UserError as error:
        for line in str(error).splitlines():
            console.error(line)
        code = _USAGE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        console.error(": ".join(str(part) for part in (error.filename, error.strerror) if part))
        code = _USAGE
    if code == _INTERRUPTED:
        with contextlib.suppress(KeyboardInterrupt):
            console.warn("interrupted")
    raise SystemExit(code)


def _explain(error: Exception) -> None:
    """A usage error in one line, and where to read on; a command that lacks a subcommand shows its help."""
    from ltrec import console

    message = error.format_message()  # type: ignore[attr-defined]
    if message.startswith("Usage: "):
        typer.echo(message, err=True)
        return
    message = " ".join(message.split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ltrec"
    message = message.replace("Value error, ", "").rstrip(".")
    option = getattr(error, "option_name", None)
    if option in _GLOBAL and command != "ltrec":
        console.error(f"{option} stands before the command: `ltrec {option} {command.removeprefix('ltrec ')}`.")
    else:
        console.error(f"{message}; see `{command} --help`.")


def _version(wanted: bool) -> None:
    if wanted:
        from ltrec import __version__

        typer.echo(f"ltrec {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    *,
    params: Annotated[Path, typer.Option(metavar="FILE", help="Where the parameters are.")] = _PARAMS,
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


def _params(context: typer.Context) -> Params:
    from ltrec.params import load

    path = context.find_root().obj
    assert isinstance(path, Path)
    return load(path)


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
    params = _params(context)
    from ltrec.stages import prepare

    prepare.run(params, decode=decode)


@app.command()
def represent(context: typer.Context) -> None:
    """Train backbone and joint classifier.

    An interrupted training goes on after its last finished epoch.
    """
    params = _params(context)
    from ltrec.stages import represent

    represent.run(params)


@app.command()
def featurize(context: typer.Context) -> None:
    """Store the features of every image."""
    params = _params(context)
    from ltrec.stages import featurize

    featurize.run(params)


@app.command()
def rebalance(
    context: typer.Context,
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="A name under rebalance in params.yaml.")],
) -> None:
    """Fit one variant's classifier on the features."""
    params = _params(context)
    from ltrec.stages import rebalance

    rebalance.run(params, variant)


@app.command()
def evaluate(context: typer.Context) -> None:
    """Compare all variants on the test split and name the champion."""
    params = _params(context)
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
) -> None:
    """Write one checked ONNX file of a variant.

    Without options it is the stage of params.yaml; with them something else, which DVC does not know.
    """
    params = _params(context)
    from ltrec.stages import export

    export.run(params, variant=variant, precision=precision, output=output)


@app.command()
def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images, folders, or - for a list on stdin.")],
    *,
    model: Annotated[Path, typer.Option(metavar="FILE", help="What `ltrec export` wrote.")] = _MODEL,
    output_format: Annotated[Format, typer.Option("--format", help="Of the answer.")] = "table",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Classes to name for each image.")] = 5,
) -> None:
    """Classify images with an exported model."""
    from ltrec.serving import run_predict

    run_predict(inputs, model=model, output_format=output_format, top=top)


@app.command()
def sync() -> None:
    """Send MLflow what could not be sent before."""
    from ltrec import tracking

    tracking.sync()


@app.command()
def init(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="A name that --list shows.")] = None,
    *,
    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="Where the recipe offers some.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="NAME", help="Likewise.")] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Likewise.")] = None,
    imbalance_factor: Annotated[str | None, typer.Option(metavar="N", help="Likewise.")] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")] = _PARAMS,
    show: Annotated[bool, typer.Option("--list", help="Show the recipes, with the figures they aim at.")] = False,
) -> None:
    """Write a recipe as params.yaml, to begin with."""
    from ltrec import console, recipes

    if show:
        console.show(recipes.table())
        return
    if recipe is None:
        raise UserError("name a recipe; `ltrec init --list` shows them", where="init")
    given = {"backbone": backbone, "sampler": sampler, "epochs": epochs, "imbalance_factor": imbalance_factor}
    chosen = {option: value for option, value in given.items() if value is not None}
    recipes.write(recipes.find(recipe), chosen, output)
    console.say(f"init: {recipe} → {output}; its first lines say which data it needs, then `dvc repro`")


@data_app.command()
def digits(
    root: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")] = Path("data"),
) -> None:
    """Write 1,797 handwritten digits as image folders."""
    from ltrec.data.digits import write_digits

    write_digits(root)


@data_app.command()
def cifar10(
    root: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")] = Path("data"),
) -> None:
    """Download CIFAR-10 and write its 60,000 images as image folders.

    Nothing is downloaded where cifar-10-python.tar.gz lies in the folder already.
    """
    from ltrec.data.cifar_archive import write_cifar10

    write_cifar10(root)


@data_app.command()
def cifar100(
    root: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")] = Path("data"),
) -> None:
    """Download CIFAR-100 and write its 60,000 images as image folders.

    Nothing is downloaded where cifar-100-python.tar.gz lies in the folder already.
    """
    from ltrec.data.cifar_archive import write_cifar100

    write_cifar100(root)


@checkpoint_app.command("import")
def import_checkpoint(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint, a .pth file.")],
    *,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="What network it is. [default: from params.yaml]")
    ] = None,
) -> None:
    """Take a published checkpoint as the representation.

    It stands where `represent` would write: featurize, rebalance, evaluate and export go on from it.
    """
    params = _params(context)
    from ltrec.published import import_checkpoint

    import_checkpoint.run(params, file, backbone=backbone)


@checkpoint_app.command("export")
def export_checkpoint(
    context: typer.Context,
    *,
    layout: Annotated[  # noqa: ARG001
        Literal["decoupling"], typer.Option("--format", help="The format; there is no other.", show_default=False)
    ] = "decoupling",
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")] = _CHECKPOINT,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose classifier. [default: the representation's own]")
    ] = None,
) -> None:
    """Write backbone and classifier as the research code loads them."""
    params = _params(context)
    from ltrec.published import export_checkpoint

    export_checkpoint.run(params, output, variant=variant)


@features_app.command("import")
def import_features(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The dump, a .pkl file.")],
    *,
    split: Annotated[Split, typer.Option(help="Whose images they are.")],
) -> None:
    """Take published features as a split's features.

    They must be of the network that `ltrec checkpoint import` took.
    """
    from ltrec.published import import_features

    import_features.run(file, split)


@params_app.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml."""
    from ltrec import params

    typer.echo(params.schema_text(), nl=False)


@params_app.command()
def check(
    context: typer.Context,
    *,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print all parameters, defaults too, as JSON.")] = False,
) -> None:
    """Check params.yaml without running anything."""
    from ltrec import console

    params = _params(context)
    if resolved:
        typer.echo(params.model_dump_json(indent=2))
    console.say(f"{context.find_root().obj}: ok, {len(params.rebalance)} variants: {', '.join(params.rebalance)}")


app.add_typer(data_app, name="data")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(features_app, name="features")
app.add_typer(params_app, name="params")
