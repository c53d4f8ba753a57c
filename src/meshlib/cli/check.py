"""``meshlib check``: everything that is wrong in files, and what of them is not honoured."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from meshlib.cli.output import PATH, fail, plural, reading
from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    from meshlib.config.gather import Gathered
    from meshlib.config.problems import Problem

__all__ = ["Remark", "check", "remarks"]

_COLOURS: Final = {"error": "red", "ignored": "yellow", "different": "cyan", "hint": "cyan", "passed": None}
_COMMANDS: Final = {"error": "error", "ignored": "warning", "different": "notice", "hint": "notice", "passed": "notice"}
_WORDS: Final = {"ignored": "not honoured", "different": "honoured differently", "passed": "not about calls"}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to say of a file.

    Attributes:
        kind: ``error``; ``ignored``: not honoured; ``different``: honoured, but not to the letter; ``hint``: what
            may be a slip, and may be right; ``passed``: a document that does not say how calls are made.
        file: where.
        line: in it, from 1; None where it is not known.
        text: with the field or the document.
    """

    kind: str
    file: str
    line: int | None
    text: str

    @property
    def where(self) -> str:
        """The file and the line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@click.command(short_help="Say all that is wrong, and what is not honoured.")
@click.argument("files", nargs=-1, type=PATH)
@click.option("--strict", is_flag=True, help="What is not honoured is an error.")
@click.option("--all", "everything", is_flag=True, help="Name documents that say nothing of calls, too.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.option("--set", "variables", metavar="NAME=VALUE", multiple=True, help="A variable, besides the environment's.")
def check(files: tuple[Path, ...], strict: bool, everything: bool, form: str, variables: tuple[str, ...]) -> None:
    """Say all that is wrong in FILES, what is not honoured, and what is honoured differently.

    Files and directories, in any dialect, are read as one configuration, as if a file included them; without any,
    it is the file that a mesh would read here. Nothing is asked over the network.

    \b
    Examples:
      meshlib check mesh.yaml
      meshlib check --strict mesh.yaml k8s/
      meshlib check --format github --set CONSUL_HTTP_TOKEN=none deploy/
      helm template ./chart | meshlib check -

    Exits with 0 if nothing is wrong, with 1 if something is (or, with --strict, is not honoured), and with 2 if the
    command was called wrongly.
    """
    from meshlib.config.gather import gather

    files = files or _own()
    with reading(files):
        gathered = gather(files, environ={**os.environ, **_variables(variables)})
    found = [each for each in remarks(gathered) if everything or each.kind != "passed"]
    counted = Counter(each.kind for each in found)
    if strict:
        counted["error"] += counted.pop("ignored", 0)
    if form == "json":
        click.echo(json.dumps(_report(gathered, found, not counted["error"]), indent=2, ensure_ascii=False))
    else:
        for each in found:
            shown = "error" if strict and each.kind == "ignored" else each.kind
            click.echo(_command(each, shown)) if form == "github" else _tell(each, shown)
        click.echo(_summary(gathered, counted), err=form == "github")
    sys.exit(1 if counted["error"] else 0)


def remarks(gathered: Gathered) -> Iterator[Remark]:
    """All that there is to say: errors, then what is not honoured, then what is honoured differently, then hints."""
    yield from (_remark("error", problem) for problem in gathered.problems)
    said = {(problem.file, problem.line, problem.text) for problem in gathered.problems}
    for kind in ("ignored", "different", "passed"):
        for note in gathered.notes:
            text = f"{note.place.what}: {note.text}"
            if note.effect == kind and (note.place.file, note.place.line, text) not in said:
                yield Remark(kind, note.place.file, note.place.line, text)
    yield from (_remark("hint", hint) for hint in gathered.hints)


def _remark(kind: str, problem: Problem) -> Remark:
    text = str(problem).removeprefix(problem.file if problem.line is None else f"{problem.file}:{problem.line}")
    return Remark(kind, problem.file, problem.line, text.removeprefix(": "))


def _own() -> tuple[Path, ...]:
    from meshlib.config.find import CONFIG_VARIABLE, FILE_NAMES, find_file
    from meshlib.errors import ConfigError

    try:
        found = find_file()
    except ConfigError as error:
        fail(str(error))
    if found is None:
        fail(f"no file is given, ${CONFIG_VARIABLE} is not set, and here is no {' or '.join(FILE_NAMES)}")
    return (Path(found),)


def _variables(given: tuple[str, ...]) -> Mapping[str, str]:
    variables = {}
    for each in given:
        name, found, value = each.partition("=")
        if not found or not name:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--set")
        variables[name] = value
    return variables


def _tell(remark: Remark, shown: str) -> None:
    click.echo(f"{click.style(f'{shown:10}', fg=_COLOURS[shown])}{remark.where}: {remark.text}")


def _command(remark: Remark, shown: str) -> str:
    """A workflow command of GitHub: it shows the remark at its line."""
    line = "" if remark.line is None else f",line={remark.line}"
    return f"::{_COMMANDS[shown]} file={_property(remark.file)}{line}::{_data(remark.text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _summary(gathered: Gathered, counted: Counter[str]) -> str:
    services, routes = _size(gathered)
    said = [f"{counted[kind]} {words}" for kind, words in _WORDS.items() if counted[kind]]
    said += [plural(counted["hint"], "hint")] if counted["hint"] else []
    outcome = ", ".join([plural(counted["error"], "error"), *said])
    return f"{plural(len(gathered.files), 'file')}, {plural(services, 'service')}, {plural(routes, 'route')}: {outcome}"


def _size(gathered: Gathered) -> tuple[int, int]:
    config = gathered.config
    if config is None:
        return 0, 0
    return len(config.services), sum(len(service.routes) for service in config.services.values())


def _report(gathered: Gathered, found: list[Remark], ok: bool) -> dict[str, object]:
    services, routes = _size(gathered)
    told = [{"kind": each.kind, "file": each.file, "line": each.line, "text": each.text} for each in found]
    return {"ok": ok, "files": list(gathered.files), "services": services, "routes": routes, "remarks": told}
