"""Headers as routing and policies read them: by name in lower case, made readable only when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["HeaderFields", "Repeated"]

_ONE_LIST: Final = frozenset(
    {
        *("accept", "accept-encoding", "access-control-request-headers", "access-control-request-method"),
        *("authorization", "cache-control", "content-encoding", "content-type", "expect", "grpc-accept-encoding"),
        *("grpc-timeout", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since"),
        *("origin", "pragma", "proxy-status", "referer", "user-agent", "via", "x-client-trace-id"),
        *("x-envoy-attempt-count", "x-envoy-downstream-service-cluster", "x-envoy-original-path", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-id"),
    }
)
"""Headers of which Envoy joins what is repeated as soon as it reads them, as observed at Envoy 1.40."""


class Repeated(str):
    """The value of a header that was given several times, joined by commas.

    Attributes:
        each: the values one by one; conditions look at them, and hold if one of them does (as in Envoy 1.40).
    """

    __slots__ = ("each",)

    each: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Repeated:
        """Several values as one."""
        made = cls(",".join(values))
        made.each = tuple(values)
        return made


class HeaderFields(Mapping[str, str]):
    """Headers by name, in lower case. Of a repeated one the values are joined as Envoy does: see `Repeated`."""

    __slots__ = ("_made", "_raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._made: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._fields()[name]

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The value; `default` if there is none. Faster than by way of an exception."""
        return self._fields().get(name, default)

    def __contains__(self, name: object) -> bool:
        if self._made is not None:
            return name in self._made
        return isinstance(name, str) and any(field.lower() == name.encode("latin-1") for field, _ in self._raw)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())

    def _fields(self) -> dict[str, str]:
        made = self._made
        if made is None:
            made = self._made = _read(self._raw)
        return made


def _read(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for key, field in raw:
        name, value = key.decode("latin-1").lower(), _text(field)
        if name in fields:
            repeated.setdefault(name, [fields[name]]).append(value)
        else:
            fields[name] = value
    for name, values in repeated.items():
        if name == "cookie":
            fields[name] = "; ".join(values)
        elif name in _ONE_LIST:
            fields[name] = ",".join(filter(None, values))
        else:
            fields[name] = Repeated.of(values)
    return fields


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
