"""``meshlib explain``: what would happen to a request, and why."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from meshlib.cli.output import FILE, fail
from meshlib.durations import format_duration

if TYPE_CHECKING:
    from meshlib.adapters.plan import Plan
    from meshlib.mesh import Mesh
    from meshlib.policy.retry_settings import RetryPolicy

__all__ = ["explain"]

_MOST: Final = 20
"""Routes not taken, and endpoints, of which no more are told unless all are asked for."""


@click.command(short_help="Say what would happen to a request, and why.")
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Of the request; several times."
)
@click.option("--config", type=FILE, help="A file or directory; as for a mesh, $MESHLIB_CONFIG, else ./mesh.yaml.")
@click.option(
    "--live", is_flag=True, help="Ask discovery for endpoints; else only those written in the file are known."
)
@click.option("--timeout", default="5s", show_default=True, help="How long discovery may take.")
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
@click.option("--all", "everything", is_flag=True, help="All routes and endpoints, however many.")
def explain(
    method: str,
    url: str,
    headers: tuple[str, ...],
    config: Path | None,
    live: bool,
    timeout: str,
    as_json: bool,
    everything: bool,
) -> None:
    """Say which route a request takes, why not the others, where it goes, and what is done to it.

    Nothing is sent. Without --live nobody is asked either.

    \b
    Examples:
      meshlib explain GET http://orders/v2/x
      meshlib explain GET http://orders/ -H 'end-user: jason' --config k8s/
      meshlib explain POST http://orders/pay --live --json

    Exits with 0, or with 2 if the configuration or the request is wrong.
    """
    from meshlib.errors import ConfigError
    from meshlib.mesh import Mesh

    # What is not honoured is what `meshlib check` says.
    logging.getLogger("meshlib").addHandler(logging.NullHandler())
    given = _headers(headers)
    try:
        mesh = Mesh(None if config is None else str(config))
    except ConfigError as error:
        fail(str(error))
    try:
        plan = mesh.plan(method, url, given)
        trouble = _ask(mesh, plan, timeout) if live else []
        plan = mesh.plan(method, url, given) if live else plan
    except ValueError as error:
        fail(str(error))
    finally:
        mesh.close()
    if as_json:
        told = plan.to_dict()
        told["notes"] += trouble
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for label, text in _lines(plan, None if everything else _MOST, live):
        click.echo(f"{click.style(f'{label:10}', bold=True)}{text}")
    for each in trouble:
        click.echo(f"{'note':10}{each}")


def _headers(given: tuple[str, ...]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for each in given:
        name, found, value = each.partition(":")
        if not found or not name.strip():
            # The text is not repeated: it may be a credential.
            raise click.BadParameter("'NAME: VALUE' is expected", param_hint="-H")
        headers[name.strip()] = value.strip()
    return headers


def _ask(mesh: Mesh, plan: Plan, timeout: str) -> list[str]:
    """Wait for the endpoints of all that the plan names; what there is to say of those that have none."""
    from meshlib.errors import MeshError

    trouble = []
    for name in dict.fromkeys(cluster.partition("/")[0] for cluster, _ in plan.backends):
        try:
            mesh.wait_ready(name, timeout=timeout)
        except MeshError as error:
            trouble.append(str(error))
    return trouble


def _lines(plan: Plan, most: int | None, live: bool) -> Iterator[tuple[str, str]]:
    yield "request", f"{plan.method} {plan.url}"
    if plan.service is None:
        yield "service", "none: the host is outside the mesh"
        yield from (("note", note) for note in plan.notes)
        return
    yield "service", f"{plan.service}, mode {plan.mode}"
    others = plan.routes_not_taken
    left_out = 0 if most is None else max(0, len(others) - most)
    for name, why in others[left_out:]:
        yield "not taken", f"{name}: {why}"
    if left_out:
        yield "not taken", f"nor {left_out} routes before them; --all names them"
    yield "route", f"{plan.route}: {plan.conditions}"
    if plan.backends:
        yield "to", plan.shares.removeprefix("to ")
    yield from (("does", each) for each in plan.does)
    if plan.backends:
        yield from _endpoints(plan, most, live)
    yield from _policy(plan)
    yield from (("note", note) for note in plan.notes)


def _endpoints(plan: Plan, most: int | None, live: bool) -> Iterator[tuple[str, str]]:
    shown = plan.candidates[:most]
    for each in shown:
        state = f"not now: {each.why_not}" if each.why_not else "may be picked"
        yield "endpoint", f"{each.address} ({each.cluster}, weight {each.weight:g}): {state}"
    if len(plan.candidates) > len(shown):
        yield "endpoint", f"and {len(plan.candidates) - len(shown)} more; --all names them"
    if not plan.candidates and not live:
        yield "endpoint", "none is written down; --live asks discovery"


def _policy(plan: Plan) -> Iterator[tuple[str, str]]:
    policy: Any = plan.policy
    if policy is None:
        return
    if plan.backends:
        limit = "none" if plan.timeout_s is None else f"{format_duration(plan.timeout_s)} (by {plan.limit})"
        per_try = "none" if policy.per_try_timeout_s is None else format_duration(policy.per_try_timeout_s)
        yield "timeout", f"{limit}, per try {per_try}"
        yield "retries", _retries(policy.retry, plan.safe)
    from meshlib.config.words import value_words

    for name in ("hedge", "fault") if plan.backends else ("fault",):
        settings = getattr(policy, name)
        if settings is not None:
            yield name, value_words(settings)


def _retries(retry: RetryPolicy, safe: bool) -> str:
    if not retry.max_retries:
        return "none"
    on = set(map(str, retry.on))
    if "retriable-status-codes" in on:
        on = on - {"retriable-status-codes"} | set(map(str, retry.retriable_status_codes))
    when = f"up to {retry.max_retries} on {', '.join(sorted(on)) or 'nothing'}"
    return when if safe or retry.unsafe else f"{when}; only if nothing was sent: the request is not idempotent"
