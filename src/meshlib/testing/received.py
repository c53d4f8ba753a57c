"""A request as a served instance got it: what functions are given, and what `MeshFixture.calls` lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

__all__ = ["ReceivedRequest"]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One attempt of a call, as it arrived at an instance.

    Attributes:
        method: ``GET``, ...
        url: with the host that the caller named, by the ``Host`` header.
        headers: all, those of the mesh included (``x-meshlib-deadline-ms``, ``x-envoy-attempt-count``,
            ``x-meshlib-criticality``, ``baggage``, ``traceparent``).
        body: complete.
        service: the logical name.
        instance: the name of the instance.
        at: when, in seconds since the fixture's clock was made.
    """

    method: str
    url: httpx.URL
    headers: httpx.Headers
    body: bytes
    service: str
    instance: str
    at: float

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return self.url.path

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; of a repeated one the last. ``url.params`` has them all."""
        return MappingProxyType(dict(self.url.params.multi_items()))

    @property
    def content(self) -> bytes:
        """The body, as httpx calls it."""
        return self.body

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            ValueError: if it is not JSON.
        """
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.url.raw_path.decode('ascii')} to {self.instance} at {self.at:g}s"
