"""One document of another mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.documents import Document
from meshlib.config.problems import Path, dotted, on_one_line
from meshlib.dataclass import dataclass, field

__all__ = ["CONSUL", "Place", "Resource", "resources_in"]

CONSUL: Final = "consul"
"""The group of Consul's configuration entries, which name none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is said.

    Attributes:
        file: of the document.
        subject: the document, in words: ``VirtualService shop/reviews``.
        path: of the field in it.
        line: in the file, from 1; None where it is not known.
    """

    file: str
    subject: str
    path: Path = ()
    line: int | None = None

    @property
    def where(self) -> str:
        """The file and the line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def what(self) -> str:
        """The document and the field."""
        return f"{self.subject}: {dotted(self.path)}" if self.path else self.subject

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One document.

    Attributes:
        group, version: of its API: ``networking.istio.io`` and ``v1``; empty for Kubernetes' core, `CONSUL` for Consul.
        kind: ``VirtualService``.
        name: its own; empty if it has none.
        namespace: as written; empty if it is not.
        labels, annotations: of its metadata.
        created: when, as written; empty if it is not.
        data: all of it.
        within: the path of it in its document: not empty for an item of a list.
    """

    document: Document = field(repr=False)
    group: str
    version: str
    kind: str
    name: str
    namespace: str
    labels: Mapping[str, str] = field(repr=False)
    annotations: Mapping[str, str] = field(repr=False)
    created: str
    data: Mapping[str, Any] = field(repr=False)
    within: Path = ()

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its ``spec``, if that is a map; else empty."""
        spec = self.data.get("spec")
        return spec if isinstance(spec, Mapping) else {}

    @property
    def subject(self) -> str:
        """It, in words."""
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return on_one_line(f"{self.kind} {name}".rstrip(), 400)

    def place(self, *path: str | int) -> Place:
        """Where a field of it stands."""
        return Place(self.document.name, self.subject, path, self.document.line((*self.within, *path)))


def resources_in(document: Document) -> list[Resource]:
    """The documents of other meshes in a document: none in a native one, several in a list."""
    kustomize = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return _resources(document, {**kustomize, **document.data} if document.for_kustomize else document.data, ())


def _resources(document: Document, data: Any, within: Path) -> list[Resource]:
    if not isinstance(data, Mapping):
        return []
    kind, version = data.get("kind"), data.get("apiVersion")
    if isinstance(kind, str) and isinstance(version, str):
        items = data.get("items")
        if kind.endswith("List") and isinstance(items, list):
            found = [_resources(document, item, (*within, "items", index)) for index, item in enumerate(items)]
            return [resource for each in found for resource in each]
        return [_kubernetes(document, data, kind, version, within)]
    entry, name = data.get("Kind"), data.get("Name")
    if isinstance(entry, str):
        own = name if isinstance(name, str) else ""
        return [Resource(document, CONSUL, "", entry, own, "", {}, {}, "", data, within)]
    return []


def _kubernetes(document: Document, data: Mapping[str, Any], kind: str, api: str, within: Path) -> Resource:
    group, _, version = api.rpartition("/")
    metadata = data.get("metadata")
    given: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    return Resource(
        document,
        group,
        version,
        kind,
        _text(given.get("name")),
        _text(given.get("namespace")),
        _texts(given.get("labels")),
        _texts(given.get("annotations")),
        _text(given.get("creationTimestamp")),
        data,
        within,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: each for key, each in value.items() if isinstance(each, str)}
