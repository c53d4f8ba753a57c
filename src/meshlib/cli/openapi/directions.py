"""What is for one direction alone: ``readOnly`` for answers, ``writeOnly`` for requests.

Where such a property is required, it is so in that direction only (OpenAPI 3.0, Schema Object), so a schema with one,
however deep, is two types: what is sent, and what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshlib.cli.openapi.document import OpenApi, OpenApiError
from meshlib.cli.openapi.shapes import all_of, parts_of

__all__ = ["Directions"]


class Directions:
    """Which schemas of a document differ by direction.

    Args:
        document: whose.
    """

    def __init__(self, document: OpenApi) -> None:
        self._document = document
        self._differs: dict[str, bool] = {}

    def is_for(self, schema: Any, word: str) -> bool:
        """Whether a property is ``readOnly`` or ``writeOnly``, by itself or by what it refers to."""
        if not isinstance(schema, dict):
            return False
        return schema.get(word) is True or ("$ref" in schema and self._meant(schema).get(word) is True)

    def differs(self, ref: str) -> bool:
        """Whether what a reference leads to is to be two types."""
        if ref not in self._differs:
            self._learn(ref)
        return self._differs[ref]

    def _learn(self, first: str) -> None:
        """Look at all that can be reached once; then go back from those that have such a property."""
        users: dict[str, list[str]] = {first: []}
        found: list[str] = []
        waiting = [first]
        while waiting:
            ref = waiting.pop()
            for each in self._inside({"$ref": ref}):
                if each is None or self._differs.get(each):
                    found.append(ref)
                elif each not in self._differs:
                    if each not in users:
                        users[each] = []
                        waiting.append(each)
                    users[each].append(ref)
        self._differs |= dict.fromkeys(users, False)
        while found:
            ref = found.pop()
            if not self._differs[ref]:
                self._differs[ref] = True
                found += users[ref]

    def _inside(self, schema: Mapping[str, Any]) -> Iterator[str | None]:
        """The references in a schema; None for a property that is required in one direction alone."""
        stack: list[tuple[Any, frozenset[str]]] = [(self._meant(schema), frozenset())]
        while stack:
            node, needed = stack.pop()
            if not isinstance(node, dict):
                continue
            if isinstance(node.get("$ref"), str):
                yield self._settled(node["$ref"])
            said = [self._meant(each).get("required") for each in (node, *all_of(node))]
            more = {key for keys in said if isinstance(keys, list) for key in keys if isinstance(key, str)} - needed
            needed = needed | more if more else needed  # of thousands of parts each has it by now
            stack += [(each, needed) for each in all_of(node)]
            found = node.get("properties")
            properties: Mapping[str, Any] = found if isinstance(found, dict) else {}
            for key, each in properties.items():
                if key in needed and (self.is_for(each, "readOnly") or self.is_for(each, "writeOnly")):
                    yield None
            first = node.get("prefixItems")
            inner = [*properties.values(), *parts_of(node), *(first if isinstance(first, list) else ())]
            stack += [(each, frozenset()) for each in (*inner, node.get("items"), node.get("additionalProperties"))]

    def _settled(self, ref: str) -> str:
        try:
            return self._document.settled(ref)
        except OpenApiError:
            return ref  # whoever uses it is told

    def _meant(self, schema: Any) -> Mapping[str, Any]:
        try:
            return self._document.follow(schema)
        except OpenApiError:
            return {}
