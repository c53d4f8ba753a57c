"""What this process is to others, as it is written: its entry in the registry, what it shares and follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from meshlib.config.fields import Flag, Interval, Name, Part, Port, Positive, RedisUrl, Text, UrlPath
from meshlib.config.settings import DocumentSettings, RedisSettings, WatchSettings

__all__ = ["Documents", "Redis", "Register", "Watch"]

_REDIS = RedisSettings("")
_WATCH = WatchSettings()
_DOCUMENTS = DocumentSettings()


class Register(Part):
    """How this process enters itself into the registry.

    Attributes:
        port: the port that callers use.
        service: the name; the configuration's ``service`` unless given.
        host: the address that callers use; the one that reaches the registry unless given.
        weight: its share of calls, relative to the other instances'.
        metadata: what subsets select by.
        check_path: an HTTP path to check; without it the TCP port is checked.
        check_interval: between checks.
    """

    port: Port
    service: Name | None = None
    host: Text | None = None
    weight: Positive = 1.0
    metadata: Mapping[Text, str] = Field(default_factory=dict)
    check_path: UrlPath | None = None
    check_interval: Interval = 5.0


class Redis(Part):
    """The Redis over which the processes of a fleet share limits and breakers.

    Attributes:
        url: ``redis://host:6379/0``, ``rediss://`` with TLS, or ``unix://``; may hold a password, and is never shown.
        max_wait: how long a call waits for an answer; without one it goes on as if there were no limit.
        prefix: of all keys.
    """

    compiles_to: ClassVar = RedisSettings

    url: RedisUrl = Field(repr=False)
    max_wait: Interval = _REDIS.max_wait_s
    prefix: Text = _REDIS.prefix


class Documents(Part):
    """How the documents of other meshes are read.

    Attributes:
        strict: whether a field that is not honoured is an error; else it is a warning.
        defaults: what holds where they say nothing and ``defaults`` says nothing: ``theirs``, what their own mesh
            does, or ``ours``.
        retry_unsafe: whether their retries hold for requests that are not safe to repeat as well.
        reference_grants: whether a route of the Gateway API needs a ReferenceGrant for backends in other namespaces;
            in a mesh it does not, says GEP-1294.
    """

    compiles_to: ClassVar = DocumentSettings

    strict: Flag = _DOCUMENTS.strict
    defaults: Literal["theirs", "ours"] = _DOCUMENTS.defaults
    retry_unsafe: Flag = _DOCUMENTS.retry_unsafe
    reference_grants: Flag = _DOCUMENTS.reference_grants


class Watch(Part):
    """The files of the configuration are followed, and read again when they change.

    Attributes:
        interval: between two looks at them.
    """

    interval: Interval = _WATCH.interval_s
