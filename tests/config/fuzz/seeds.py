"""Documents to begin with: those of the documentation and of the tests, and values that have broken parsers before."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from meshlib.config.documents import DocumentError, parse
from tests.config.dialects.gateway_api.test_fields import DOCUMENTS, OTHERS
from tests.config.dialects.kubernetes.test_kubernetes import FULL
from tests.config.dialects.test_any_value import CHAIN, SAMPLES

__all__ = ["CHAIN", "ODD", "SEEDS", "changed", "paths"]

_ROOT: Final = Path(__file__).parents[3]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _written() -> Iterator[dict[str, Any]]:
    """The documents of the documentation's pages and of the samples."""
    texts = [path.read_text() for path in sorted(_ROOT.glob("tests/config/dialects/istio/samples/*.yaml"))]
    for name in ("dialects", "routing"):
        for page in sorted(_ROOT.glob(f"docs/{name}/*.md")):
            texts += _BLOCK.findall(page.read_text())
    for text in texts:
        try:
            yield from (document.data for document in parse(text.encode(), ".yaml", "some.yaml") if document.data)
        except DocumentError:
            continue  # a block that shows what is refused


SEEDS: Final[list[Mapping[str, Any]]] = [*_written(), *SAMPLES, *OTHERS[1:], *DOCUMENTS.values(), *FULL]

ODD: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "*",
        "**",
        "*.",
        ".",
        "..",
        "*.*",
        "/",
        "//",
        "a.b",
        "a",
        "::1",
    ),
    *("[::1]:80", "a:0", "a:99999999", "0s", "-1s", "1h", "9999999999h", ".s", "1s1", "NaN", "Infinity", "1e999"),
    *("x\r\ny: z", "\x00", "\x1b[31m", "\u2028", "\ud800", "\U0001f600", "ﬁ", "İ", "é" * 50, "a" * 5000, "." * 300),
    *("(", "(a|aa)+b", "(x+x+)+y", "(a*)*$", "\\1", "\\", "[", "(?=a)", "(?i)a", ".*" * 30, "(a{1000}){1000}", "\\C"),
    *(
        "\\1\\1\\1\\1",
        "\\9",
        "${X}",
        "${",
        "$$",
        "{a}",
        "{a}/{a}",
        "{",
        "{a=**}",
        "%",
        "%2F",
        "%zz",
        "../../etc",
        "/%00",
    ),
    *(
        "HTTPRoute",
        "Service",
        "exact",
        "prefix",
        "5xx",
        "gateway-error,x",
        "ISTIO_MUTUAL",
        "ring_hash",
        "web",
        "default",
    ),
    *({}, [], [[]], [{}], {"": ""}, [None], {"exact": "a"}, {"regex": "("}, {"a": {"b": {"c": []}}}, {"\n": 1}),
]
"""What stands where something else should."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each field and item."""
    if path:
        yield path
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of it with another value there."""
    result = copy.deepcopy(document)
    inside: Any = result
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = copy.deepcopy(value)
    return result
