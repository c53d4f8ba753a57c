"""``meshlib convert``: documents of any dialect in the native form."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from meshlib.cli.output import CANNOT, PATH, fail, plural, reading, write

__all__ = ["convert"]

_BY_SUFFIX = {".json": "json", ".toml": "toml"}


@click.command(short_help="Any dialect to the native form.")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--format", "form", type=click.Choice(["yaml", "json", "toml"]), help="What the file's name says, else yaml."
)
@click.option("--strict", is_flag=True, help="Exit with 1 if something is not honoured.")
def convert(files: tuple[Path, ...], output: Path | None, force: bool, form: str | None, strict: bool) -> None:
    """Print FILES, of any dialect, as one configuration in the native form.

    It means the same when it is loaded. Comments say which document each service and route comes from, and what in
    them is not honoured. Variables stay as they are written, and so does every value: secrets are printed, too.

    \b
    Examples:
      meshlib convert k8s/
      meshlib convert mesh.yaml istio/*.yaml -o native.yaml
      meshlib convert service-router.json --format json

    Exits with 0, with 1 under --strict if something is not honoured, and with 2 if the files are wrong.
    """
    from meshlib.cli.native_text import NotInToml, native_text
    from meshlib.config.gather import gather

    with reading(files):
        gathered = gather(files)
    if gathered.config is None or gathered.problems:
        fail(str(gathered.error()))
    chosen = form or _BY_SUFFIX.get("" if output is None else output.suffix.lower(), "yaml")
    try:
        text = native_text(gathered, chosen)
    except NotInToml as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT)
    write(text, output, force=force)
    ignored = [note for note in gathered.notes if note.effect == "ignored"]
    for note in ignored if output is not None or chosen == "json" else ():
        click.echo(str(note), err=True)
    if ignored:
        click.echo(f"{plural(len(ignored), 'thing')} not honoured", err=True)
    sys.exit(1 if strict and ignored else 0)
