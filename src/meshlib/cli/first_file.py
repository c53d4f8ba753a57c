"""A first file, with comments, from what ``meshlib init`` found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshlib.config.dialects.names import fitting_name
from meshlib.dataclass import dataclass, field

__all__ = ["Found", "FoundService", "first_file", "name_for"]

_PLAIN = re.compile(r"[a-z][a-z0-9._-]*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True)
class FoundService:
    """One service that is there.

    Attributes:
        name: that callers would use.
        comments: what else is known of it, a line each.
        hosts: other names by which code calls it.
        endpoints: to write down; none where discovery knows them.
        server_name: what its certificate names, where it speaks TLS; empty where it does not.
        versions: what instances say of their version in their metadata.
    """

    name: str
    comments: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    server_name: str = ""
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What is there.

    Attributes:
        origin: where it was found, in words.
        services: in the order in which they are written.
        discovery: a source by its name and fields; None where endpoints are written down.
        notes: what is worth knowing of the whole, a line each.
    """

    origin: str
    services: Sequence[FoundService]
    discovery: tuple[str, Mapping[str, str]] | None = None
    notes: tuple[str, ...] = field(default=())


def name_for(text: str) -> str:
    """A name that a service may have, as near to `text` as can be; empty if there is nothing of it."""
    return fitting_name(text)[:253]


def first_file(found: Found, service: str) -> str:
    """The file, as YAML.

    Args:
        found: what is there.
        service: this workload's own name; empty if it is not known.
    """
    return "\n".join(_lines(found, service)) + "\n"


def _lines(found: Found, service: str) -> Iterator[str]:
    yield f"# Made by `meshlib init` from {_comment(found.origin)}. What is not written has a safe default;"
    yield "# `meshlib check mesh.yaml` says what is wrong, `meshlib explain GET URL` what would happen to a request."
    yield "# Editors complete and check it after `meshlib schema -o mesh.schema.json`, with this as its first line:"
    yield "#   # yaml-language-server: $schema=mesh.schema.json"
    for note in found.notes:
        yield f"# {_comment(note)}"
    yield ""
    yield f"service: {_scalar(service)}" if service else "# service: checkout     # the name of this workload itself"
    yield "mode: observe         # decides and records everything, and changes nothing; `on` once you trust it"
    yield ""
    if found.discovery is not None:
        kind, fields = found.discovery
        yield "discovery:            # where endpoints come from"
        yield f"  - {kind}:" if fields else f"  - {kind}: {{}}"
        yield from (f"      {name}: {_scalar(value)}" for name, value in fields.items())
        yield ""
    yield "# defaults:           # for every service"
    yield "#   timeout: 30s"
    yield ""
    yield "services:" if found.services else "services: {}"
    for each in found.services:
        yield from _service(each)


def _service(service: FoundService) -> Iterator[str]:
    for comment in service.comments:
        yield f"  # {_comment(comment)}"
    yield f"  {_scalar(service.name)}:"
    if service.hosts:
        yield f"    hosts: [{', '.join(map(json.dumps, service.hosts))}]"
    if service.endpoints:
        yield f"    endpoints: [{', '.join(map(json.dumps, service.endpoints))}]"
    if service.server_name:
        yield f"    tls: {{server_name: {_scalar(service.server_name)}}}"
    if len(service.versions) > 1:
        subsets = ", ".join(f"{_scalar(name_for(each))}: {{version: {_scalar(each)}}}" for each in service.versions)
        yield f"    # subsets: {{{_comment(subsets)}}}"
    yield "    # timeout: 2s"


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text not in _WORDS else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    """One line of it: what a registry holds may have anything in it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:400]
