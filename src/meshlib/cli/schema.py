"""``meshlib schema``: the JSON Schema of the native file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from meshlib.cli.output import write

__all__ = ["schema"]


@click.command(short_help="Print a JSON Schema, for editors.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def schema(output: Path | None) -> None:
    """Print a JSON Schema (draft 2020-12) of the native file.

    Editors complete and check a file by it. With the YAML extension of VS Code, as the first line of mesh.yaml:

    \b
      # yaml-language-server: $schema=mesh.schema.json

    \b
    Example:
      meshlib schema -o mesh.schema.json
    """
    from meshlib.config.schema import config_schema

    write(json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n", output, force=True)
