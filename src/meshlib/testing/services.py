"""What a fixture serves: services, their instances, and the requests that came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from meshlib.balance.endpoint import Endpoint
from meshlib.testing.apps import App
from meshlib.testing.faults import Faults
from meshlib.testing.received import ReceivedRequest

if TYPE_CHECKING:
    from meshlib.testing.fixture import MeshFixture

__all__ = ["Instance", "Registry", "Served", "Which"]


@dataclass(slots=True, eq=False)
class Instance:
    """One served instance.

    Attributes:
        service: the logical name.
        name: ``orders-0``, or as it was given.
        endpoint: what the mesh knows of it.
        alive: whether it accepts connections.
    """

    service: str
    name: str
    endpoint: Endpoint
    app: App = field(repr=False)
    faults: Faults = field(repr=False)
    raise_errors: bool = True
    alive: bool = True


Which: TypeAlias = "int | str | Instance | Served | None"
"""Instances of a service: by number (in the order in which they were served), by name, or themselves; None for all."""


class Registry:
    """The services of one fixture.

    Attributes:
        calls: every request that arrived, in order.
    """

    def __init__(self) -> None:
        self.calls: list[ReceivedRequest] = []
        self._instances: dict[str, list[Instance]] = {}
        self._faults: dict[str, Faults] = {}
        self._at: dict[tuple[str, str, int], Instance] = {}
        self._turn = 0

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services."""
        return tuple(self._instances)

    def add(
        self, service: str, app: App, endpoints: Sequence[Endpoint | None], *, name: str | None, **facts: Any
    ) -> list[Instance]:
        """Serve `app` at each of `endpoints`; None is one that has no address yet.

        Raises:
            ValueError: if the service has an instance of that name.
        """
        present = self._instances.setdefault(service, [])
        faults = self.faults(service)
        raise_errors = facts.pop("raise_errors")
        new: list[Instance] = []
        for number, endpoint in enumerate(endpoints):
            own = f"{service}-{len(present) + number}" if name is None else name
            if name is not None and len(endpoints) > 1:
                own = f"{name}-{number}"
            if any(other.name == own for other in (*present, *new)):
                raise ValueError(f"{service} has an instance {own!r} already")
            if endpoint is None:
                endpoint = Endpoint(own, 80, instance_id=f"{service}/{own}", **facts)
            new.append(Instance(service, own, endpoint, app, faults, raise_errors))
        present += new
        self._at.update((instance.endpoint.key, instance) for instance in new)
        return new

    def faults(self, service: str) -> Faults:
        """What goes wrong with a service."""
        return self._faults.setdefault(service, Faults())

    def instances(self, service: str) -> Sequence[Instance]:
        """Those of a service, in the order in which they were served."""
        return self._instances.get(service, ())

    def at(self, endpoint: Endpoint) -> Instance | None:
        """The instance at an endpoint."""
        return self._at.get(endpoint.key)

    def next(self, service: str) -> Instance | None:
        """An instance for a call that no mesh balances: each in turn."""
        instances = self.instances(service)
        self._turn += 1
        return instances[self._turn % len(instances)] if instances else None

    def pick(self, service: str, which: Which) -> Sequence[Instance]:
        """The instances that `which` means.

        Raises:
            LookupError: if the service, or the instance, is not served.
        """
        if service not in self._instances:
            raise LookupError(f"{service} is not served here ({self.described()}); mesh.serve({service!r}, ...) first")
        instances = self._instances[service]
        match which:
            case None:
                return instances
            case Instance():
                return [which]
            case Served():
                return which.instances
            case int() if -len(instances) <= which < len(instances):
                return [instances[which]]
            case str() if found := [instance for instance in instances if instance.name == which]:
                return found
        names = ", ".join(instance.name for instance in instances) or "none"
        raise LookupError(f"{service} has no instance {which!r}; it has {names}")

    def described(self) -> str:
        """What is served, for error messages."""
        return f"served are {', '.join(self._instances)}" if self._instances else "nothing is served"

    def forget(self) -> None:
        """Forget what came and what goes wrong; what is served stays."""
        self.calls.clear()
        for faults in self._faults.values():
            faults.clear()
        for instances in self._instances.values():
            for instance in instances:
                instance.alive = True


class Served:
    """The instances that one `MeshFixture.serve` added: a handle for faults and for what they received.

    Attributes:
        service: the logical name.
        instances: in order.
    """

    def __init__(self, mesh: MeshFixture, service: str, instances: Sequence[Instance]) -> None:
        self.service = service
        self.instances: tuple[Instance, ...] = tuple(instances)
        self._mesh = mesh

    def __repr__(self) -> str:
        return f"<Served {self.service} [{', '.join(instance.name for instance in self.instances)}]>"

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __getitem__(self, number: int) -> Instance:
        return self.instances[number]

    @property
    def calls(self) -> list[ReceivedRequest]:
        """The requests that came to these instances, in order."""
        return self._mesh.calls(self.service, instance=self)

    def fail_next(self, times: int | None = 1, **how: Any) -> None:
        """As `MeshFixture.fail_next`, for these instances."""
        self._mesh.fail_next(self.service, times, instance=self, **how)

    def slow(self, by: Any, *, times: int | None = None) -> None:
        """As `MeshFixture.slow`, for these instances."""
        self._mesh.slow(self.service, by, times=times, instance=self)

    def hang(self, *, times: int | None = None) -> None:
        """As `MeshFixture.hang`, for these instances."""
        self._mesh.hang(self.service, times=times, instance=self)

    def kill(self) -> None:
        """As `MeshFixture.kill`, for these instances."""
        self._mesh.kill(self.service, instance=self)

    def revive(self) -> None:
        """As `MeshFixture.revive`, for these instances."""
        self._mesh.revive(self.service, instance=self)
