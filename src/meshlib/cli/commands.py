"""What the command ``meshlib`` can do. Each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from meshlib._version import __version__
from meshlib.cli.check import check
from meshlib.cli.convert import convert
from meshlib.cli.diff import diff
from meshlib.cli.explain import explain
from meshlib.cli.generate import generate
from meshlib.cli.init import init
from meshlib.cli.override import override
from meshlib.cli.schema import schema

__all__ = ["meshlib"]

_DEMO_NEEDS = ("fastapi", "flask", "uvicorn")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="meshlib-http", message="meshlib-http %(version)s")
def meshlib() -> None:
    """A service mesh as a Python library."""


for _command in (check, convert, diff, explain, generate, init, override, schema):
    meshlib.add_command(_command)


@meshlib.command(short_help="Look at this environment.")
def doctor() -> None:
    """Look at this environment: versions, optional packages, the configuration, the registry.

    Exits with 1 if something is broken; a warning alone is not.
    """
    from meshlib.cli.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(finding)
    sys.exit(1 if any(finding.broken for finding in findings) else 0)


@meshlib.command(short_help="See the mesh at work, and plain httpx beside it.")
@click.option("--consul", is_flag=True, help="Use a real Consul agent, started for the demo, as the registry.")
@click.option(
    "--seconds",
    type=click.FloatRange(8, 600),
    default=35.0,
    show_default=True,
    help="How long traffic flows; starting and ending the processes takes some seconds more.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a live table, as where there is no terminal.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all figures to this file.",
)
def demo(consul: bool, seconds: float, plain: bool, json_file: Path | None) -> None:
    """See the mesh at work: real services, real faults, and plain httpx beside it.

    Starts a small shop on this machine, as processes of their own: a storefront calls orders (three instances, and a
    canary version) and catalogue (three instances), and orders calls catalogue too. A second storefront does the same
    with httpx and a list of addresses, round robin. Both get the same requests at the same time, while instances are
    slowed, fail, hang and are killed, and the registry is restarted.

    Exits with 0 if the mesh lost no call that it should have saved. All calls are GETs, which the mesh may repeat, so
    of the requests to its storefront at most 0.2 % may fail (one in a run of default length, none in a short one), and
    no more than with plain httpx. Otherwise with 1; with 2 if the demo cannot run here; with 130 on Ctrl-C.
    """
    missing = [name for name in _DEMO_NEEDS if find_spec(name) is None]
    if missing:
        click.echo(f'the demo needs {" and ".join(missing)}: pip install "meshlib-http[demo]"', err=True)
        sys.exit(2)
    if sys.platform == "win32":
        click.echo("the demo stops and kills processes by POSIX signals, which Windows does not have", err=True)
        sys.exit(2)
    from meshlib.cli.demo.run import Options, run_demo

    sys.exit(run_demo(Options(consul=consul, seconds=seconds, plain=plain, json_file=json_file)))
