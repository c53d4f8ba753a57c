"""What all commands say alike: configurations that cannot be read, files that are written, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from meshlib.config.settings import MeshSettings

__all__ = ["CANNOT", "FILE", "PATH", "fail", "plural", "reading", "settings_of", "write"]

CANNOT: Final = 2
"""The exit code of a command that could not do its work."""

STANDARD_INPUT: Final = "/dev/stdin"


class _Given(click.Path):
    """A file or a directory, or ``-``: what comes by the standard input, in YAML."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(STANDARD_INPUT if value == "-" else value, param, ctx)


FILE: Final = click.Path(exists=True, path_type=Path)
PATH: Final = _Given(exists=True, path_type=Path)


def fail(text: str) -> NoReturn:
    """End the command: it cannot do its work."""
    click.echo(text, err=True)
    sys.exit(CANNOT)


def settings_of(paths: Sequence[Path]) -> MeshSettings:
    """The configuration that files and directories make together; ends the command if they make none."""
    from meshlib.config.compile import compile_config
    from meshlib.config.gather import gather

    with reading(paths):
        gathered = gather(paths)
    if gathered.config is None or gathered.problems:
        fail(str(gathered.error()))
    return compile_config(gathered.config)


@contextmanager
def reading(paths: Sequence[Path]) -> Iterator[None]:
    """Tell somebody at a terminal that files are being read: a large directory takes a while."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or not any(path.is_dir() for path in paths):
        yield
        return
    with console.status("reading " + ", ".join(map(str, paths))):
        yield


def write(text: str, output: Path | None, *, force: bool) -> None:
    """Print `text`, or write it to a file; ends the command if it may not be written.

    Args:
        text: with its last line break.
        output: None for standard output.
        force: whether a file that is there may be replaced.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{output} is there already; --force replaces it")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror or error}")
    click.echo(f"wrote {output}", err=True)


def plural(count: int, what: str) -> str:
    """``1 service``, ``2 services``."""
    return f"{count} {what}{'' if count == 1 else 's'}"
