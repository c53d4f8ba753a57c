"""The kinds of value that a configuration holds, and the base of every part of it.

Each kind is checked by one small function that says what is wrong without repeating the value: a value may be a secret,
or come from the environment, so only `meshlib.config.problems` decides whether it is shown.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    PlainValidator,
    Tag,
    ValidationError,
)

from meshlib.config import shown
from meshlib.config.measures import Amount, Count, Interval, Percent, Port, Positive, Span
from meshlib.config.rejection import closest, reject
from meshlib.policy.retry_on import CONDITIONS

__all__ = [
    "MAP_OR_FALSE",
    "TOKEN",
    "WIRE_HEADERS",
    "Address",
    "Amount",
    "Cidr",
    "Code",
    "Count",
    "Domain",
    "Flag",
    "HeaderName",
    "HeaderText",
    "HeaderValue",
    "Host",
    "Interval",
    "IpAddress",
    "Many",
    "Methods",
    "Name",
    "OrFalse",
    "OrNone",
    "OwnName",
    "Part",
    "Percent",
    "Port",
    "Positive",
    "RedisUrl",
    "Regex",
    "RetryConditions",
    "Span",
    "Template",
    "Text",
    "Url",
    "UrlPath",
    "closest",
    "exactly_one",
    "reject",
    "split_address",
    "split_endpoint",
]

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?\.?")
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What names of headers, cookies and methods are made of (RFC 9110, section 5.6.2)."""

MAP_OR_FALSE: Final = "a map, or false,"
"""What pydantic names, where a fault is, a part that may be false."""

_LONGEST_SOCKET_PATH = 107
_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

WIRE_HEADERS: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


class Part(BaseModel):
    """The base of every part of a configuration: immutable, and strict about the fields it has.

    Attributes:
        compiles_to: the settings class that it is laid over (`meshlib.config.lay`); None if it has none of its own.
    """

    compiles_to: ClassVar[type | None] = None

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # most parts are only ever validated as parts of the whole
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            from meshlib.config.problems import from_code

            raise from_code(type(self), fields, error) from None

    @property
    def is_off(self) -> bool:
        """Whether it says that there is to be none of it."""
        return False

    def begins_with(self, base: Any) -> Any:
        """What it is laid over: `base`, where what is written does not speak for another start."""
        return base

    # pydantic then still builds nested parts by itself, so that a fault deep inside keeps its whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def exactly_one(part: Part, kinds: Sequence[str]) -> None:
    """Refuse a condition of which not exactly one of the fields `kinds` is written."""
    given = [kind for kind in kinds if getattr(part, kind) is not None]
    if len(given) != 1:
        found = f"has {' and '.join(given)}" if given else "has no condition"
        reject(f"{found}: exactly one of {', '.join(kinds)} is expected")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    # Text, because a substituted variable is text.
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    guess = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
    reject("is not true or false", nearest=guess.get(value.lower()) if isinstance(value, str) else None)


def _text(value: str) -> str:
    if not value.strip():
        reject("is empty")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        reject("has a control character in it")
    return value


def _own_name(value: str) -> str:
    return _name(value) if value else value


def _name(value: str) -> str:
    if not value:
        reject("is empty; a name is expected")
    if not _NAME.fullmatch(value):
        lower = value.lower()
        nearest = lower if _NAME.fullmatch(lower) else re.sub(r"[^a-z0-9._-]+", "-", lower).strip("-._")
        reject(
            "is not a name: lower-case letters, digits, '-', '_' and '.', a letter or digit at both ends",
            nearest=nearest if _NAME.fullmatch(nearest) else None,
        )
    return value


def split_address(value: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]`` or ``[v6]:port`` into the host without brackets and the port.

    Raises:
        PydanticCustomError: if it is none of them.
    """
    host, port = value, None
    if "://" in value or "/" in value:
        rest = value.split("://")[-1].split("/")[0]
        reject("is not an address: leave out the scheme and the path", nearest=rest or None)
    bracketed = value.startswith("[")
    if bracketed:
        host, closed, rest = value[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            reject("is not an address such as 10.0.0.1:8080 or [::1]:8080")
        port = rest[1:] if rest else None
    elif value.count(":") == 1:
        host, _, port = value.partition(":")
    elif ":" in value:
        reject("is not an address: an IPv6 address is written in brackets, [::1]:8080")
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            reject("has no IPv6 address between its brackets")
    elif not _HOST.fullmatch(host.lower()):
        reject("is not an address such as 10.0.0.1:8080 or orders.internal:8080")
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit()):
        reject("has a port that is not a number")
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        reject("has a port outside 1 to 65535")
    return host, int(port)


def split_endpoint(value: str) -> tuple[str, int]:
    """Split ``host:port``, as `split_address` does; ``unix:/run/orders.sock`` has the port 0. The host may be ``*``.

    Raises:
        PydanticCustomError: if it is neither.
    """
    if value.startswith("unix:"):
        return f"unix:{_socket_path(value.removeprefix('unix:'))}", 0
    # As an asterisk stands for each host, it is checked as if it were one.
    host, port = split_address(f"all{value[1:]}" if value.startswith("*:") else value)
    if port is None:
        reject("has no port; write it like 10.0.0.1:8080")
    return "*" if value.startswith("*:") else host, port


def _socket_path(path: str) -> str:
    if path.startswith("//"):  # as in a URL, whose host is empty
        path = path[2:]
    if not path.startswith(("/", "@")) or len(path) < 2:
        reject("is not the path of a socket: write it from the root, like unix:/run/orders.sock")
    _text(path)
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        reject("is not the path of a socket: the file system cannot hold its characters")
    if length > _LONGEST_SOCKET_PATH:
        reject(f"is too long: the system takes {_LONGEST_SOCKET_PATH} bytes for the path of a socket")
    return path


def _address(value: str) -> str:
    split_endpoint(value)
    return value


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        reject("is not an IP address such as 10.0.0.5 or ::1")


def _host(value: str) -> str:
    stem = value.removeprefix("*.")
    split_address(f"all{stem[1:]}" if stem == value and (value == "*" or value.startswith("*:")) else stem)
    return value.lower()


def _domain(value: str) -> str:
    stem = value.lower().removeprefix("*.")
    if value != "*" and not _HOST.fullmatch(stem):
        reject("is not a domain: write a name, or '*.' before one, as in *.mesh")
    return value.lower()


def _url(value: str) -> str:
    scheme, found, rest = value.partition("://")
    authority = rest.split("/")[0]
    if not found or scheme.lower() not in ("http", "https") or not authority:
        nearest = f"http://{value}" if not found and _HOST.fullmatch(value.split(":")[0].lower()) else None
        reject("is not a URL such as http://127.0.0.1:8500", nearest=nearest)
    if "@" in authority:
        reject("has credentials in it; give a token in its own field")
    split_address(authority)
    return value.rstrip("/")


def _redis_url(value: str) -> str:
    _text(value)
    scheme = value.partition("://")[0]
    if scheme not in ("redis", "rediss", "unix"):
        reject("is not the URL of a Redis, such as redis://127.0.0.1:6379/0")
    try:
        parts = urlsplit(value)
        usable = scheme == "unix" or (parts.port != 0 and re.fullmatch(r"/?|/[0-9]+", parts.path) is not None)
    except ValueError:
        usable = False
    if not usable:
        reject("is not the URL of a Redis: its port or its database is no number, as in redis://127.0.0.1:6379/0")
    return value


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        nearest = str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        reject("is not a network such as 10.0.0.0/8 or ::1/128")
    reject("is not a network: it has bits set beyond its prefix", nearest=nearest)


def _url_path(value: str) -> str:
    if not value.startswith("/"):
        reject("does not begin with '/'", nearest=f"/{value}" if value and "://" not in value else None)
    if "?" in value or "#" in value:
        reject("is more than a path: conditions on the query go under 'query'")
    return value


def _template(value: str) -> str:
    _url_path(value)
    names = _VARIABLE.findall(value)
    if any(brace in _VARIABLE.sub("", value) for brace in "{}"):
        reject("is not a template such as /orders/{order_id}")
    if len(set(names)) != len(names):
        reject("has the same variable twice")
    return value


def _regex(value: str) -> str:
    # Loaded here: few configurations have any.
    from meshlib.routing.regex import RegexError, compile_regex

    try:
        compile_regex(value)
    except RegexError as error:
        reject(error.text, part=error.part)
    return value


def _header_name(value: str) -> str:
    if not TOKEN.fullmatch(value):
        reject("is not the name of a header")
    return value.lower()


def _header_text(value: str) -> str:
    if any(character in value for character in "\r\n\0") or (not value.isprintable() and "\t" not in value):
        reject("cannot be sent as a header: it has a control character in it")
    return value


def _header_value(value: str) -> str:
    _header_text(value)
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        reject("cannot be sent as a header: it has characters outside Latin-1")
    return value


def _methods(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(isinstance(method, str) for method in given):
        reject("is not a method or a list of methods", kind="type")
    if not given or not all(TOKEN.fullmatch(method) for method in given):
        reject("is not a method such as GET, or a list of methods")
    return tuple(dict.fromkeys(method.upper() for method in given))


def _condition(value: Any) -> str | int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if 400 <= value <= 599:
            return value
        reject("is not a status to retry on: 400 to 599 is expected")
    if isinstance(value, str) and value in CONDITIONS:
        return value
    if value == "http3-post-connect-failure":
        reject("is a condition of HTTP/3, which the mesh does not speak")
    reject(
        f"is not a condition to retry on: {', '.join(CONDITIONS)} or a status such as 503 is expected",
        nearest=closest(value, CONDITIONS) if isinstance(value, str) else None,
    )


def _code(value: Any) -> Any:
    if value is not None and not callable(value):
        reject("can be given in code only: a tenacity strategy object, or a function like one", kind="type")
    return value


def _checked(check: Callable[[str], str]) -> Any:
    return AfterValidator(check)


Text = Annotated[str, _checked(_text), shown.TEXT]
Name = Annotated[str, _checked(_name), shown.NAME]
OwnName = Annotated[str, _checked(_own_name)]
Address = Annotated[str, _checked(_address), shown.ADDRESS]
Host = Annotated[str, _checked(_host), shown.HOST]
IpAddress = Annotated[str, _checked(_ip_address), shown.IP_ADDRESS]
Domain = Annotated[str, _checked(_domain), shown.DOMAIN]
Url = Annotated[str, _checked(_url), shown.URL]
RedisUrl = Annotated[str, _checked(_redis_url), shown.REDIS_URL]
Cidr = Annotated[str, _checked(_cidr), shown.CIDR]
UrlPath = Annotated[str, _checked(_url_path), shown.PATH]
Template = Annotated[str, _checked(_template), shown.TEMPLATE]
Regex = Annotated[str, _checked(_regex)]
HeaderName = Annotated[str, _checked(_header_name), shown.HEADER_NAME]
HeaderText = Annotated[str, _checked(_header_text)]
HeaderValue = Annotated[str, _checked(_header_value)]

Flag = Annotated[bool, PlainValidator(_flag), shown.FLAG]

Methods = Annotated[str | Sequence[str], PlainValidator(_methods), shown.METHODS]
RetryConditions = Annotated[
    Sequence[Annotated[str | int, PlainValidator(_condition), shown.CONDITION]],
    BeforeValidator(lambda value: list(value) if isinstance(value, (set, frozenset)) else value),
    AfterValidator(frozenset),
]
Code = Annotated[Any, PlainValidator(_code), shown.CODE]

# Written as a list; kept as what nobody can change.
Many = Annotated[Sequence[T], AfterValidator(tuple)]

# A part, or null for none of it, for which false may be written as well.
OrNone = Annotated[T | None, BeforeValidator(lambda value: None if value is False else value), shown.Also(False)]

# A part, or false for none of it.
OrFalse = Annotated[
    Annotated[T, Tag(MAP_OR_FALSE)] | Annotated[Literal[False], Tag("false")],
    Discriminator(lambda value: "false" if value is False else MAP_OR_FALSE),
]
