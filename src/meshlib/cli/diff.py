"""``meshlib diff``: what would behave differently between two configurations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from meshlib.cli.output import PATH, plural, settings_of

__all__ = ["diff"]


@click.command(short_help="Say what would behave differently.")
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="A list of differences, as JSON.")
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Say what would behave differently with AFTER instead of BEFORE.

    Each is a file or a directory, in any dialect: what they come to is compared, not how it is written. Values that
    may be secrets are never shown.

    \b
    Examples:
      meshlib diff mesh.yaml mesh.new.yaml
      meshlib diff istio/ mesh.yaml

    Exits with 0 if nothing would, with 1 if something would, and with 2 if one of them cannot be read.
    """
    from meshlib.config.difference import differences

    found = differences(settings_of([before]), settings_of([after]))
    if as_json:
        click.echo(json.dumps([each.to_dict() for each in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo("no difference")
    else:
        for each in found:
            click.secho(str(each), fg={"added": "green", "removed": "red", "changed": None}[each.change])
        click.echo(plural(len(found), "difference"), err=True)
    sys.exit(1 if found else 0)
