"""``meshlib generate``: code from documents."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from meshlib.cli.output import fail, write

__all__ = ["generate"]


@click.group(short_help="Make code of a document.")
def generate() -> None:
    """Make code of a document."""


@generate.command(short_help="A declarative client, of an OpenAPI document.")
@click.argument("document", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option("--force", is_flag=True, help="Replace the file, if it is there.")
@click.option("--async", "style", flag_value="async", default=True, help="Methods are coroutines (the default).")
@click.option("--sync", "style", flag_value="sync", help="Methods are plain functions.")
@click.option("--both", "style", flag_value="both", help="A class of each.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="References to other files stay in this directory; by default in that of the document.",
)
@click.option("--name", help="Of the class; by default the document's title.")
def client(
    document: Path,
    output: Path | None,
    force: bool,
    style: Literal["async", "sync", "both"],
    root: Path | None,
    name: str | None,
) -> None:
    """Make a declarative client of an OpenAPI document, 3.0 or 3.1, in YAML or JSON; - reads it from standard input.

    What comes out is one module: a Protocol whose methods are the operations, and models of what they take and give.
    The same document gives the same text. Whatever the document says, it becomes names and literals, never code.
    Swagger 2.0 is read, too.

    \b
    Example:
      meshlib generate client openapi.yaml --output orders.py
      curl -s http://localhost:8000/openapi.json | meshlib generate client - --output orders.py

    Exits with 0; with 2 if the document cannot be read, or no client can be made of it.
    """
    from meshlib.cli.openapi.document import OpenApiError, read_openapi
    from meshlib.cli.openapi.module import make_module

    try:
        text = make_module(read_openapi(document, root), style, name)
    except OpenApiError as error:
        fail(str(error))
    write(text, output, force=force)
