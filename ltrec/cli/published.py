"""`ltrec checkpoint` and `ltrec features`: the research code's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ltrec.artifacts import Split  # noqa: TC001 - typer reads the annotations
from ltrec.cli.setup import LOOKS, enter_project, load_params

_CHECKPOINT = Path("final_model_checkpoint.pth")  # as the research code calls it

checkpoint_app = typer.Typer(help="Read and write the research code's checkpoints.", **LOOKS)
features_app = typer.Typer(help="Read the research code's feature dumps.", **LOOKS)


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
    file = enter_project(context) / file
    params = load_params(context)
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
    output = enter_project(context) / output
    params = load_params(context)
    from ltrec.published import export_checkpoint

    export_checkpoint.run(params, output, variant=variant)


@features_app.command("import")
def import_features(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The dump, a .pkl file.")],
    *,
    split: Annotated[Split, typer.Option(help="Whose images they are.")],
) -> None:
    """Take published features as a split's features.

    They must be of the network that `ltrec checkpoint import` took.
    """
    file = enter_project(context) / file
    from ltrec.published import import_features

    import_features.run(file, split)
