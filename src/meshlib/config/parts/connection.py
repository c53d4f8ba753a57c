"""Connections and their encryption, as they are written."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from meshlib.config.fields import Count, Flag, IpAddress, OrFalse, Part, Span, Text, reject
from meshlib.config.settings import KeepaliveSettings, PoolSettings, TlsSettings

__all__ = ["Pool", "TcpKeepalive", "Tls"]

_POOL = PoolSettings()
_KEEPALIVE = KeepaliveSettings()


def _whole_seconds(value: float) -> float:
    # What the system takes: it counts in seconds, in 15 bits.
    if not 1 <= value <= 32767:
        reject("is out of range: 1s to 32767s is expected")
    return value


_Seconds = Annotated[Span, AfterValidator(_whole_seconds)]


def _certificates(value: str) -> str:
    if "-----BEGIN CERTIFICATE-----" not in value:
        reject("has no certificate in it: the text of a PEM file is expected")
    return value


class TcpKeepalive(Part):
    """When the system asks a silent peer whether it is still there.

    Attributes:
        time: of silence, before the first probe.
        interval: between probes.
        probes: without an answer, after which the connection is broken.
    """

    compiles_to: ClassVar = KeepaliveSettings

    time: _Seconds = _KEEPALIVE.time_s
    interval: _Seconds = _KEEPALIVE.interval_s
    probes: Annotated[Count, Field(ge=1, le=127)] = _KEEPALIVE.probes


class Pool(Part):
    """Connections to one endpoint.

    Attributes:
        max_connections: open at once.
        max_pending: calls that wait for one of them; a further one fails at once.
        idle: a connection idle for longer is not used again.
        idle_unsafe: the same for a request that could not be sent twice.
        local_address: the IP address that connections begin at; the system's choice unless given.
        tcp_keepalive: see its class; false switches it off.
    """

    compiles_to: ClassVar = PoolSettings

    max_connections: Annotated[Count, Field(ge=1)] = _POOL.max_connections
    max_pending: Annotated[Count, Field(ge=0)] = _POOL.max_pending
    idle: Span = _POOL.idle_s
    idle_unsafe: Span = _POOL.idle_unsafe_s
    local_address: IpAddress | None = _POOL.local_address
    tcp_keepalive: OrFalse[TcpKeepalive] = TcpKeepalive()


class Tls(Part):
    """How connections to a service are encrypted.

    Attributes:
        mode: ``simple`` (the server has a certificate) or ``off``.
        server_name: for SNI and verification; the service's name unless given.
        ca_file: a PEM bundle of trusted roots; the system's unless given.
        ca: the text of such a bundle, instead.
        cert_file, key_file: this workload's own certificate and its key, if the peer asks for one.
        verify: false turns verification off, for tests only.
    """

    compiles_to: ClassVar = TlsSettings

    mode: Literal["off", "simple"] = "simple"
    server_name: Text | None = None
    ca_file: Text | None = None
    ca: Annotated[str, AfterValidator(_certificates)] | None = Field(default=None, repr=False)
    cert_file: Text | None = None
    key_file: Text | None = Field(default=None, repr=False)
    verify: Flag = True

    @property
    def is_off(self) -> bool:
        return self.mode == "off"

    @model_validator(mode="after")
    def _whole_certificate(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            there, missing = ("cert_file", "key_file") if self.key_file is None else ("key_file", "cert_file")
            reject(f"has a {there} without a {missing}")
        if self.ca_file is not None and self.ca is not None:
            reject("has a ca_file and a ca: one of them is expected")
        if not self.verify and (self.ca_file or self.ca) is not None:
            reject(f"has a {'ca' if self.ca_file is None else 'ca_file'} and verify: false, which does not look at it")
        return self
