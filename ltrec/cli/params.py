"""`ltrec params`: what may stand in params.yaml, and whether it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ltrec.cli.setup import LOOKS, load_params

app = typer.Typer(help="Check params.yaml, and describe it to editors.", **LOOKS)


@app.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml."""
    from ltrec.config import params

    typer.echo(params.schema_text(), nl=False)


@app.command()
def check(
    context: typer.Context,
    *,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print all parameters, defaults too, as JSON.")] = False,
) -> None:
    """Check params.yaml without running anything."""
    from ltrec import console
    from ltrec.config.params import missing_for_dvc

    params = load_params(context)
    file = context.find_root().obj
    if resolved:
        content = params.model_dump(mode="json")
        content["represent"]["image"] = params.represent.preprocessing().settings()
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    if Path("dvc.yaml").is_file() and (missing := missing_for_dvc(file)):
        console.warn(
            f"{file}: `dvc repro` wants to find {', '.join(missing)} in it, also where the defaults are meant"
            " (`export: {}`); `ltrec run` does not"
        )
    console.say(f"{file}: ok, {len(params.rebalance)} variants: {', '.join(params.rebalance)}")
