"""What a server says of its own load: ORCA reports, in the response header ``endpoint-load-metrics``.

The header holds a report in one of three forms, told by its first word:

    TEXT cpu_utilization=0.3, rps_fractional=120, eps=1, named_metrics.queue=4
    JSON {"cpu_utilization": 0.3, "rps_fractional": 120}
    BIN CTMzMzMzM9M/        (an OrcaLoadReport of protocol buffers in base64)

``endpoint-load-metrics-bin``, gRPC's own, holds the third without the word. Sources: ``orca_load_report.proto`` of the
xDS API, Envoy's ``orca_parser.cc``, gRPC A51.

What a server sends is not trusted: a report that is too long, cannot be read, names a metric twice or one that does not
exist, or has a number that is negative, infinite or none, is no report. As in Envoy one bad metric spoils the whole.
"""

from __future__ import annotations

import binascii
import json
import re
import struct
from base64 import b64decode
from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Final

from meshlib.dataclass import dataclass, field

__all__ = ["BINARY_HEADER", "HEADER", "LONGEST", "LoadReport", "parse_binary", "parse_report"]

HEADER: Final = "endpoint-load-metrics"
BINARY_HEADER: Final = "endpoint-load-metrics-bin"

LONGEST: Final = 4096
"""A header's value that has more bytes is not read."""

_NONE: Mapping[str, float] = MappingProxyType({})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TEXT_ITEM = re.compile(r"([^=:]+)[=:](.+)", re.DOTALL)
_SCALARS = ("application_utilization", "cpu_utilization", "mem_utilization", "rps_fractional", "eps")
_MAPS = ("utilization", "named_metrics")
_DOUBLES = {1: "cpu_utilization", 2: "mem_utilization", 6: "rps_fractional", 7: "eps", 9: "application_utilization"}
_ENTRIES = {5: "utilization", 8: "named_metrics"}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How loaded a server is, as it says itself. A figure of 0 is one that it does not know.

    Attributes:
        application_utilization: share of what it can do that is in use, by a measure of its own; 1 is all. May be more.
        cpu_utilization: share of the CPUs that it may use.
        mem_utilization: share of the memory.
        rps_fractional: requests that it answers per second.
        eps: errors that it answers with per second.
        utilization: shares of other resources, by name.
        named_metrics: figures of any kind, by name.
    """

    application_utilization: float = 0.0
    cpu_utilization: float = 0.0
    mem_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    utilization: Mapping[str, float] = field(default_factory=lambda: _NONE, hash=False)
    named_metrics: Mapping[str, float] = field(default_factory=lambda: _NONE, hash=False)

    def metric(self, name: str) -> float:
        """The figure of this name, ``cpu_utilization`` or ``named_metrics.queue``; 0 if it is not there."""
        kind, dot, key = name.partition(".")
        if dot:
            entries: Mapping[str, float] = getattr(self, kind) if kind in _MAPS else _NONE
            return entries.get(key, 0.0)
        value: float = getattr(self, name) if name in _SCALARS else 0.0
        return value

    def text(self) -> str:
        """The value of the header, in the form ``TEXT``. Figures that would not be believed are left out."""
        figures = [(name, self.metric(name)) for name in _SCALARS]
        for kind in _MAPS:
            entries: Mapping[str, float] = getattr(self, kind)
            figures += [(f"{kind}.{key}", value) for key, value in entries.items() if _NAME.fullmatch(key)]
        return "TEXT " + ", ".join(f"{name}={value:.6g}" for name, value in figures if _is_figure(value) and value)


_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}", re.ASCII)


def parse_report(value: str) -> LoadReport | None:
    """The report in a header's value; None if it is none. Never raises."""
    if len(value) > LONGEST:
        return None
    form, _, rest = value.partition(" ")
    if form == "TEXT":
        return _parse_text(rest)
    if form == "JSON":
        return _parse_json(rest)
    return parse_binary(rest) if form == "BIN" else None


def parse_binary(value: str) -> LoadReport | None:
    """The report in base64, with or without its padding; None if it is none. Never raises."""
    if not value or len(value) > LONGEST:
        return None
    try:
        data = b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), validate=True)
        return _report(_read_message(data))
    except (binascii.Error, ValueError, IndexError, struct.error):
        return None


def _parse_text(text: str) -> LoadReport | None:
    found: dict[str, float] = {}
    for item in text.split(","):
        match = _TEXT_ITEM.fullmatch(item.strip())
        if match is None:
            return None
        name, written = match[1].strip(), match[2].strip()
        if name in found or not _NUMBER.fullmatch(written):
            return None
        found[name] = float(written)
    return _report(found)


def _parse_json(text: str) -> LoadReport | None:
    try:
        written = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return None
    if not isinstance(written, dict):
        return None
    found: dict[str, float] = {}
    for name, value in written.items():
        snake = re.sub("([A-Z])", lambda match: "_" + match[1].lower(), name)  # JSON of protocol buffers has both
        if snake in _MAPS and isinstance(value, dict):
            found.update((f"{snake}.{key}", entry) for key, entry in value.items())
        elif snake not in _PASSED_OVER:
            found[snake] = value
    return _report(found)


_PASSED_OVER = ("rps", "request_cost")
"""Fields of the message that nothing here uses: the first is deprecated, the second is of one request."""


def _read_message(data: bytes) -> dict[str, float]:
    found: dict[str, float] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 1:
            (value,) = struct.unpack_from("<d", data, at)
            at += 8
            if number in _DOUBLES:
                found[_DOUBLES[number]] = value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("cut short")
            if number in _ENTRIES:
                key, value = _read_entry(data[at : at + length])
                found[f"{_ENTRIES[number]}.{key}"] = value
            at += length
        else:
            raise ValueError("an unknown kind of field")
    return found


def _read_entry(data: bytes) -> tuple[str, float]:
    key, value, at = "", 0.0, 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag == 0x0A:
            length, at = _varint(data, at)
            key = data[at : at + length].decode()
            at += length
        elif tag == 0x11:
            (value,) = struct.unpack_from("<d", data, at)
            at += 8
        else:
            raise ValueError("no entry of a map of doubles")
    return key, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number too long")


def _report(found: Mapping[str, float]) -> LoadReport | None:
    scalars: dict[str, float] = {}
    maps: dict[str, dict[str, float]] = {}
    for name, value in found.items():
        kind, dot, key = name.partition(".")
        if not _is_figure(value):
            return None
        if dot and kind in _MAPS and key:
            maps.setdefault(kind, {})[key] = value
        elif name in _SCALARS:
            scalars[name] = value
        else:
            return None
    return LoadReport(
        scalars.get("application_utilization", 0.0),
        scalars.get("cpu_utilization", 0.0),
        scalars.get("mem_utilization", 0.0),
        scalars.get("rps_fractional", 0.0),
        scalars.get("eps", 0.0),
        maps.get("utilization", _NONE),
        maps.get("named_metrics", _NONE),
    )


def _is_figure(value: object) -> bool:
    return isinstance(value, float) and value >= 0.0 and isfinite(value)
