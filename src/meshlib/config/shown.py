"""How an editor checks single values: JSON Schemas beside the functions of `meshlib.config.fields` and `measures`.

A schema lets pass what the function takes, and need not refuse all that it refuses. Wherever a value stands, a variable
may stand as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import WithJsonSchema

from meshlib.policy.retry_on import CONDITIONS

__all__ = [
    "ADDRESS",
    "BYTES",
    "CALLERS",
    "CIDR",
    "CODE",
    "CONDITION",
    "DOMAIN",
    "DURATION_TEXT",
    "FLAG",
    "HEADER_NAME",
    "HOST",
    "INTERVAL",
    "IP_ADDRESS",
    "METHODS",
    "NAME",
    "PATH",
    "PERCENTILE",
    "REDIS_URL",
    "SENDERS",
    "SPAN",
    "STATUSES",
    "TEMPLATE",
    "TEXT",
    "URL",
    "VARIABLE",
    "Also",
    "Inside",
    "OrOne",
]

VARIABLE: Final = r"\$\{"
DURATION_TEXT: Final = rf"^([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d))+)$|{VARIABLE}"
"""A duration in a file, or a variable that holds one."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


def _text(pattern: str, *examples: str) -> dict[str, Any]:
    shown = {"type": "string", "minLength": 1, "pattern": rf"^({pattern})$|{VARIABLE}"}
    return {**shown, "examples": list(examples)} if examples else shown


_METHOD = _text(_TOKEN, "GET", "POST")
_STATUS = {"type": ["integer", "string"], "minimum": 400, "maximum": 599, "pattern": rf"^[45][0-9]{{2}}$|{VARIABLE}"}

INTERVAL = WithJsonSchema({"type": ["string", "number"], "pattern": DURATION_TEXT, "exclusiveMinimum": 0})
SPAN = WithJsonSchema({"type": ["string", "number"], "pattern": DURATION_TEXT, "minimum": 0})
TEXT = WithJsonSchema({"type": "string", "minLength": 1})
NAME = WithJsonSchema(_text(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?"))
ADDRESS = WithJsonSchema(_text(r"unix:.+|[^/]+:[0-9]{1,5}", "10.0.0.1:8080"))
HOST = WithJsonSchema(_text(r"[^/]+", "orders.internal:8080"))
IP_ADDRESS = WithJsonSchema(_text(r"[0-9a-fA-F.:]+", "10.0.0.5"))
DOMAIN = WithJsonSchema(_text(r"[^/:]+", "*.mesh"))
URL = WithJsonSchema(_text(r"[hH][tT][tT][pP][sS]?://[^@]+", "http://127.0.0.1:8500"))
REDIS_URL = WithJsonSchema(_text(r"(rediss?|unix)://.*", "redis://127.0.0.1:6379/0"))
CIDR = WithJsonSchema(_text(r"[0-9a-fA-F.:]+(/[0-9]{1,3})?", "10.0.0.0/8"))
PATH = WithJsonSchema(_text(r"/[^?#]*", "/orders"))
TEMPLATE = WithJsonSchema(_text(r"/[^?#]*", "/orders/{order_id}"))
HEADER_NAME = WithJsonSchema(_text(_TOKEN, "x-user"))
FLAG = WithJsonSchema(
    {"type": ["boolean", "string"], "pattern": rf"^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$|{VARIABLE}"}
)
METHODS = WithJsonSchema({"anyOf": [_METHOD, {"type": "array", "items": _METHOD, "minItems": 1}]})
CONDITION = WithJsonSchema({"anyOf": [{"enum": list(CONDITIONS)}, _STATUS]})
CODE = WithJsonSchema({"type": "null", "description": "In code only."})
SENDERS = WithJsonSchema({"type": "string", "pattern": rf"^(?:peer|header:{_TOKEN})$|{VARIABLE}"})
CALLERS = WithJsonSchema(
    {
        "anyOf": [
            {"enum": ["route", "criticality", "hash_key"]},
            {"type": "string", "pattern": rf"^header:{_TOKEN}$|{VARIABLE}"},
        ]
    }
)
STATUSES = WithJsonSchema(
    {
        "type": ["integer", "string"],
        "minimum": 100,
        "maximum": 599,
        "pattern": rf"^[1-5][0-9]{{2}}(-[1-5][0-9]{{2}})?$|{VARIABLE}",
    }
)
PERCENTILE = WithJsonSchema(
    {
        "type": ["string", "number"],
        "pattern": rf"^p[0-9]{{1,3}}(\.[0-9]{{1,4}})?$|{DURATION_TEXT}",
        "exclusiveMinimum": 0,
        "examples": ["p95", "50ms"],
    }
)
BYTES = WithJsonSchema({"type": "string", "examples": ["ping", "hex:0d0a"]})


class Also:
    """A value that may be written as well, and that becomes one of the kind before the model sees it."""

    def __init__(self, value: Any) -> None:
        self._schema = {"type": "null"} if value is None else value if isinstance(value, dict) else {"const": value}

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        inner = handler(core)
        choices = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
        return {"anyOf": [*choices, self._schema]}


class OrOne:
    """A list, for which one of what it holds may be written."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        inner = handler(core)
        return {"anyOf": [inner["items"], inner]}


class Inside:
    """A map with one key, which says what is under it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        inner = {"anyOf": [handler(core), {"type": "null"}]}
        return {
            "type": "object",
            "properties": {self._name: inner},
            "required": [self._name],
            "additionalProperties": False,
        }
