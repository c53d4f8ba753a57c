"""What the documents of other meshes come to: one configuration in the native form, written by all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from meshlib.config.dialects.names import fitting_name
from meshlib.config.dialects.resources import Place, Resource
from meshlib.config.problems import Path, on_one_line
from meshlib.config.settings import DocumentSettings
from meshlib.dataclass import dataclass, field

__all__ = [
    "CLUSTER_DOMAIN",
    "MAX_WRITTEN",
    "Context",
    "Draft",
    "Effect",
    "Inventory",
    "Note",
    "Port",
    "ServiceDraft",
    "ServiceEntry",
    "TooMuch",
]

CLUSTER_DOMAIN: Final = "svc.cluster.local"

Effect: TypeAlias = Literal["ignored", "different", "wrong", "passed"]
"""What becomes of something that a document says: it is not honoured; it is, but not to the letter; it is an error;
or the document is none that says how calls are made."""

MAX_WRITTEN: Final = 300_000
"""So many services, routes, conditions, backends and endpoints documents may come to; a few lines can multiply them."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a translation may know besides the documents.

    Attributes:
        namespace, labels: of this workload.
        service: its own name; empty if it has none.
        settings: how documents are read.
        defaults: the names of the fields that the user's own ``defaults`` write: they hold where documents are silent.
    """

    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: DocumentSettings = DocumentSettings()
    defaults: frozenset[str] = frozenset()
    service: str = ""
    zone: str = ""
    discovery: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a document says and that is not done, or not to the letter.

    Attributes:
        place: where it says so.
        text: what differs, in words.
        effect: see `Effect`.
    """

    place: Place
    text: str
    effect: Effect

    def __str__(self) -> str:
        return on_one_line(f"{self.place}: {self.text}", 4000)


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service that documents declare.

    Attributes:
        number: that callers use.
        name: its own; empty if it has none.
        target: of the endpoints: a number, or a name.
        protocol: as written, or empty: ``HTTP``, ``TCP``, ``kubernetes.io/h2c``.
    """

    number: int
    name: str = ""
    target: int | str = 0
    protocol: str = ""


@dataclass(slots=True)
class ServiceEntry:
    """A service that documents declare.

    Attributes:
        host: in full: ``reviews.shop.svc.cluster.local``.
        namespace: that it is in.
        ports: in order; the first is that of the service itself, each further one a service of its own.
        labels: of the document.
        place: where it is declared.
        annotations: of the document.
    """

    host: str
    namespace: str
    ports: tuple[Port, ...]
    labels: Mapping[str, str]
    place: Place
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Inventory:
    """The services that documents declare, by host in full."""

    services: dict[str, ServiceEntry] = field(default_factory=dict)


class TooMuch(Exception):
    """Documents come to more than `MAX_WRITTEN`; `place` is where that was noticed."""

    def __init__(self, place: Place) -> None:
        super().__init__(f"comes, with all that was read before it, to more than {MAX_WRITTEN} routes and endpoints")
        self.place = place


class ServiceDraft:
    """One service in the native form, as far as documents have written it.

    Attributes:
        name: its own.
        data: its fields.
        origins: where each field, or a part of one, was said, by its path within the service.
        usual: the fields that nobody wrote: what the mesh of the documents does unless told otherwise.
    """

    def __init__(self, draft: Draft, name: str) -> None:
        self._draft = draft
        self.name = name
        self.data: dict[str, Any] = {}
        self.origins: dict[Path, Place] = {}
        self.usual: set[str] = set()
        self._held: dict[str, set[str]] = {}

    def put(self, name: str, value: Any, place: Place) -> None:
        """Write a field. If another document has written another value, that is an error."""
        if name in self.data and name not in self.usual:
            if self.data[name] != value:
                other = self.origins[(name,)]
                self._draft.note(place, f"{name} of the service {self.name!r} is given by {other} as well", "wrong")
            return
        self.usual.discard(name)
        self.data[name] = value
        self.origins[(name,)] = place

    def put_usual(self, name: str, value: Any, place: Place) -> None:
        """Write what holds where nobody says anything: neither a document, nor the user, for it or in ``defaults``."""
        context = self._draft.context
        if context.settings.defaults == "theirs" and name not in context.defaults and name not in self.data:
            self.usual.add(name)
            self.data[name] = value
            self.origins[(name,)] = place

    def add(self, name: str, values: Iterable[Any], place: Place) -> None:
        """Add what is not there yet to a field that is a list: ``hosts``, ``endpoints``."""
        held = self.data.setdefault(name, [])
        known = self._held.get(name)
        if known is None or len(known) != len(held):
            known = self._held[name] = {_key(each) for each in held}
        for value in values:
            self._draft.spend(1, place)
            key = _key(value)
            if key not in known:
                known.add(key)
                self.origins[(name, len(held))] = place
                held.append(value)
        self.origins.setdefault((name,), place)

    def merge(self, name: str, values: Mapping[str, Any], place: Place) -> None:
        """Add entries to a field that is a map: ``subsets``. Another value for one that is there is an error."""
        held = self.data.setdefault(name, {})
        self._draft.spend(len(values), place)
        self.origins.setdefault((name,), place)
        for key, value in values.items():
            if held.setdefault(key, value) != value:
                other = self.origins[(name, key)]
                text = f"{name} of the service {self.name!r} has another {key!r} by {other}"
                self._draft.note(place, text, "wrong")
            else:
                self.origins.setdefault((name, key), place)

    def routes(self, routes: Sequence[Mapping[str, Any]], places: Sequence[Place]) -> None:
        """Write the routes, with a place for each. Which of two documents' come first nobody could say: an error."""
        held = self.data.setdefault("routes", [])
        if held and places:
            text = f"says where calls to the service {self.name!r} go, and so does {self.origins[('routes',)]}"
            self._draft.note(places[0], f"{text}; one of them must go", "wrong")
            return
        for route, place in zip(routes, places, strict=True):
            self._draft.spend(1 + len(route.get("match") or ()) + len(route.get("backends") or ()), place)
            self.origins[("routes", len(held))] = place
            self.origins.setdefault(("routes",), place)
            held.append(dict(route))


class Draft:
    """The whole: what all documents write to.

    Attributes:
        context: what they may know.
        services: by name.
        top: other fields of the configuration.
        origins: where each field of `top` was said.
        notes: what is not done, or not to the letter.
        inventory: the services that they declare.
        security: the documents that speak of identity and authorization.
        taken: what fields of documents were looked at: the kind, and the path with ``[]`` for places in lists.
    """

    def __init__(self, context: Context, most: int = MAX_WRITTEN) -> None:
        self.context = context
        self._left = most
        self.services: dict[str, ServiceDraft] = {}
        self.top: dict[str, Any] = {}
        self.origins: dict[Path, Place] = {}
        self.notes: list[Note] = []
        self._noted: set[Note] = set()
        self.inventory = Inventory()
        self.security: list[Resource] = []
        self.taken: set[tuple[str, str]] = set()

    def note(self, place: Place, text: str, effect: Effect) -> None:
        """Say that something is not done, or not to the letter."""
        note = Note(place, on_one_line(text), effect)
        if note not in self._noted:
            self._noted.add(note)
            self.notes.append(note)

    def spend(self, count: int, place: Place) -> None:
        """Say that so much is about to be made.

        Raises:
            TooMuch: if it is more than may be.
        """
        self._left -= count
        if self._left < 0:
            raise TooMuch(place)

    def put(self, name: str, value: Any, place: Place) -> None:
        """Write a field of the configuration itself, such as ``egress``."""
        if name in self.top and self.top[name] != value:
            self.note(place, f"{name} is given by {self.origins[(name,)]} as well", "wrong")
            return
        self.top[name] = value
        self.origins.setdefault((name,), place)

    # Names

    def namespace_of(self, resource: Resource) -> str:
        """The namespace of a document; that of this workload if it names none."""
        return resource.namespace or self.context.namespace

    def host_of(self, host: str, namespace: str) -> str:
        """A host in full: one without a dot is a service of `namespace`."""
        host = host.lower().rstrip(".")
        if host == "*" or "." in host:
            return host
        return f"{host}.{namespace}.{CLUSTER_DOMAIN}"

    def name_of(self, host: str, namespace: str) -> str:
        """The name of the service that a host in a document of `namespace` means."""
        full = self.host_of(host, namespace)
        inside = _inside(full)
        if inside is not None:
            service, its = inside
            return service if its == self.context.namespace else f"{service}.{its}"
        if full == "*":
            return "any"
        stem = f"any.{full[2:]}" if full.startswith("*.") else full
        return fitting_name(stem) or "any"

    def service(self, host: str, namespace: str, place: Place) -> ServiceDraft:
        """The service that a host means, with all the names that callers use for it."""
        name = self.name_of(host, namespace)
        service = self.services.get(name) or self.new(name, place)
        others = [other for other in self._hosts(host, namespace) if other != name]
        if others:
            service.add("hosts", others, place)
        return service

    def port_of(self, host: str, namespace: str, number: int | None) -> Port | None:
        """The port of a host, where documents declare it to be another than the first; None for the host's own service.

        Args:
            host, namespace: as for `host_of`.
            number: of the port; None for the first.
        """
        entry = self.inventory.services.get(self.host_of(host, namespace))
        if entry is None or number is None:
            return None
        return next((port for port in entry.ports[1:] if port.number == number), None)

    def port_name_of(self, host: str, namespace: str, number: int | None) -> str:
        """The name of the service that a port of a host means: further ports are services of their own."""
        name, port = self.name_of(host, namespace), self.port_of(host, namespace, number)
        if port is None:
            return name
        named = f"{name}-{fitting_name(port.name) or port.number}"
        # Another service may have that name.
        return f"{name}-{port.number}" if self.host_of(named, namespace) in self.inventory.services else named

    def port_service(self, host: str, namespace: str, number: int | None, place: Place) -> ServiceDraft:
        """The service that a port of a host means, with all the names that callers use for it."""
        port = self.port_of(host, namespace, number)
        if port is None:
            return self.service(host, namespace, place)
        name = self.port_name_of(host, namespace, number)
        service = self.services.get(name) or self.new(name, place)
        own = self.name_of(host, namespace)
        names = dict.fromkeys([own, *self._hosts(host, namespace)])
        service.add("hosts", [f"{each}:{port.number}" for each in names], place)
        return service

    def _hosts(self, host: str, namespace: str) -> list[str]:
        full = self.host_of(host, namespace)
        inside = _inside(full)
        if inside is None:
            return [full]
        service, its = inside
        return [f"{service}.{its}", f"{service}.{its}.svc", full]

    def new(self, name: str, place: Place) -> ServiceDraft:
        """A service of a name that no other has yet."""
        self.spend(1, place)
        made = self.services[name] = ServiceDraft(self, name)
        return made

    # What it comes to

    def data(self) -> tuple[dict[str, Any], dict[Path, Place]]:
        """All of it in the native form, and where each field was said."""
        data = dict(self.top)
        origins = dict(self.origins)
        services: dict[str, Any] = {}
        for name, service in sorted(self.services.items()):
            services[name] = service.data
            for path, place in service.origins.items():
                origins[("services", name, *path)] = place
                origins.setdefault(("services", name), place)
        if services:
            data["services"] = services
        return data, origins


def _key(value: Any) -> str:
    """Equal for values that are equal."""
    return value if isinstance(value, str) else repr(value)


def _inside(host: str) -> tuple[str, str] | None:
    """The service and the namespace of a host in the cluster; None for any other."""
    stem = host.removesuffix(f".{CLUSTER_DOMAIN}")
    service, dot, namespace = stem.rpartition(".")
    if stem == host or not dot or "*" in host or "." in service:
        return None
    return service, namespace
