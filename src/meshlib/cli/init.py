"""``meshlib init``: a first file from what is there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshlib.cli.output import fail, plural, write

if TYPE_CHECKING:
    from meshlib.cli.first_file import Found

__all__ = ["init"]


@click.command(short_help="Write a first file from what is there.")
@click.option("--consul", "origin", flag_value="consul", help="From the catalog of a Consul agent.")
@click.option("--kubernetes", "origin", flag_value="kubernetes", help="From the Services of a namespace.")
@click.option("--env", "origin", flag_value="env", help="From ORDERS_URL, ORDERS_SERVICE_HOST and the like.")
@click.option("--address", metavar="URL", help="Of Consul; $CONSUL_HTTP_ADDR, else this machine's own agent.")
@click.option("--datacenter", help="Of Consul; the agent's own unless given.")
@click.option("--api", metavar="URL", help="Of Kubernetes, as `kubectl proxy` has it; in a pod its own cluster's.")
@click.option("--namespace", help="Of Kubernetes; in a pod its own.")
@click.option("--service", default="", help="The name of this workload itself.")
@click.option("-o", "--output", default="mesh.yaml", show_default=True, help="The file; - for standard output.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(
    origin: str | None,
    address: str | None,
    datacenter: str | None,
    api: str | None,
    namespace: str | None,
    service: str,
    output: str,
    force: bool,
) -> None:
    """Write a first mesh.yaml, with comments, from what is there.

    It begins in mode `observe`, which changes nothing. A token of Consul is taken from $CONSUL_HTTP_TOKEN, and the
    file names that variable, never the token.

    \b
    Examples:
      meshlib init --env
      meshlib init --consul --service checkout
      meshlib init --kubernetes --namespace shop --api http://127.0.0.1:8001

    Exits with 0 if the file was written, else with 2.
    """
    from meshlib.cli.first_file import first_file, name_for

    if origin is None:
        raise click.UsageError("one of --consul, --kubernetes and --env says where to look")
    if service and name_for(service) != service:
        raise click.BadParameter(f"{service!r} is no name; {name_for(service)!r} would be", param_hint="--service")
    path = None if output == "-" else Path(output)
    if path is not None and path.exists() and not force:
        fail(f"{path} is there already; --force replaces it, -o names another")
    found = _look(origin, address, datacenter, api, namespace)
    write(first_file(found, service), path, force=force)
    click.echo(f"{plural(len(found.services), 'service')} from {found.origin}", err=True)


def _look(origin: str, address: str | None, datacenter: str | None, api: str | None, namespace: str | None) -> Found:
    from meshlib.errors import MeshError

    try:
        if origin == "consul":
            return _consul(address, datacenter)
        if origin == "kubernetes":
            from meshlib.cli.init_kubernetes import cluster_here, found_in_kubernetes

            return found_in_kubernetes(cluster_here(api, namespace))
        from meshlib.cli.init_env import found_in_environment

        return found_in_environment(os.environ)
    except MeshError as error:
        fail(str(error))


def _consul(address: str | None, datacenter: str | None) -> Found:
    from meshlib.cli.init_consul import found_in_consul
    from meshlib.config.settings import ConsulSettings
    from meshlib.dataclass import replace

    token = os.environ.get("CONSUL_HTTP_TOKEN")
    settings = replace(ConsulSettings(), token=token or None, datacenter=datacenter)
    given = address or os.environ.get("CONSUL_HTTP_ADDR")
    if given:
        settings = replace(settings, address=given)

    def told(done: int, of: int) -> None:
        if of > 50 and (done % 50 == 0 or done == of):
            click.echo(f"{done} of {of} services", err=True)

    return asyncio.run(found_in_consul(settings, told, by_variable=bool(token)))
