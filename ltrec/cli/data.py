"""`ltrec data`: images to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltrec.cli.setup import LOOKS

Root = Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")]

app = typer.Typer(help="Sample data and benchmarks.", **LOOKS)


@app.command()
def digits(root: Root = Path("data")) -> None:
    """Write 1,797 handwritten digits as image folders."""
    from ltrec.data.downloads.digits import write_digits

    write_digits(root)


@app.command()
def cifar10(root: Root = Path("data")) -> None:
    """Download CIFAR-10 and write its 60,000 images as image folders.

    Nothing is downloaded where cifar-10-python.tar.gz lies in the folder already.
    """
    from ltrec.data.downloads.cifar_archive import write_cifar10

    write_cifar10(root)


@app.command()
def cifar100(root: Root = Path("data")) -> None:
    """Download CIFAR-100 and write its 60,000 images as image folders.

    Nothing is downloaded where cifar-100-python.tar.gz lies in the folder already.
    """
    from ltrec.data.downloads.cifar_archive import write_cifar100

    write_cifar100(root)
