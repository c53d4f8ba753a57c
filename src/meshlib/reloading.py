"""One mesh under changing settings: the configuration read anew, and what a control plane lays over it.

What a call reads of services is swapped whole (`meshlib.config.snapshot.Snapshots.reconfigure`); the rest follows here,
in an order in which nothing is ever without what it needs.

Files are looked at in a thread of their own for each look, since a file system may take its time. The control thread
keeps the time between two looks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from meshlib.config.settings import (
    ConsulSettings,
    MeshSettings,
    Mode,
    ServiceSettings,
    StaticSettings,
    WatchSettings,
)
from meshlib.dataclass import replace
from meshlib.discovery.build import make_source
from meshlib.discovery.threads import start_thread
from meshlib.errors import ConfigError, MeshClosed, MeshError
from meshlib.policy.settings import BreakerSettings
from meshlib.telemetry import events

if TYPE_CHECKING:
    from meshlib.balance.endpoint import Endpoint
    from meshlib.chains import Chains
    from meshlib.config.difference import Difference
    from meshlib.config.file_watch import FileWatch
    from meshlib.config.settings import DiscoverySettings
    from meshlib.config.views import ServiceView
    from meshlib.discovery.source import Source
    from meshlib.fleet.shared import SharedGates
    from meshlib.wiring import Wiring

__all__ = ["Laid", "Reloading", "fleet_of", "written_endpoints"]

_LINGER_S = 60.0
_log = logging.getLogger("meshlib")

Laid = ServiceSettings | Callable[[MeshSettings], ServiceSettings]
"""What a control plane says of a service: its settings, or what makes them of the configuration as it is written."""


class Reloading:
    """The settings of one mesh, and their changes. Safe from any thread."""

    def __init__(
        self, wiring: Wiring, settings: MeshSettings, sources: bool = True, endpoints: bool = True, fleet: bool = True
    ) -> None:
        """Begin with the first settings.

        Args:
            wiring: of the mesh.
            settings: as they are written.
            sources, endpoints, fleet: whether these are those that are written; a test may bring others.
        """
        self._wiring = wiring
        self._of_sources, self._of_endpoints, self._of_fleet = sources, endpoints, fleet
        self._written = settings
        self._laid: dict[str, Laid] = {}
        self._chains: Chains | None = None
        self._mode: Mode | None = None  # set by hand
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._read: Callable[[set[str]], MeshSettings] = lambda seen: settings
        self._watch: bool | None = None
        self._files: FileWatch | None = None
        self._beginning = threading.Lock()
        self._following = False
        self._sources: list[tuple[DiscoverySettings, Source]] = []

    def sources_of(self, settings: MeshSettings) -> tuple[Source, ...]:
        """The sources of discovery; those whose settings have not changed are the same ones.

        Raises:
            ConfigError: if one of them refuses its settings.
        """
        known, found = list(self._sources), []
        for each in settings.discovery:
            same = next((pair for pair in known if pair[0] == each), None)
            if same is not None:
                known.remove(same)
            found.append((each, self._made(each)) if same is None else same)
        self._sources = found
        return tuple(source for _, source in found)

    def _made(self, settings: DiscoverySettings) -> Source:
        source = make_source(settings)
        if isinstance(settings, ConsulSettings) and settings.chain:
            from meshlib.chains import Chains
            from meshlib.discovery.consul import ConsulSource

            assert isinstance(source, ConsulSource)
            self._chains = self._chains or Chains(self._wiring)
            source.follow_chains(self._chains.take)
        return source

    def set_mode(self, mode: Mode) -> None:
        """The mode of the mesh, set by hand: it outlasts what a configuration says."""
        self._mode = mode
        self._keep_mode()

    def _keep_mode(self) -> None:
        wiring, mode = self._wiring, self._mode
        if mode is not None and (wiring.plane.mode, wiring.settings.mode) != (mode, mode):
            wiring.plane.mode = mode
            wiring.settings = replace(wiring.settings, mode=mode)

    def read_by(
        self, read: Callable[[set[str]], MeshSettings], seen: Iterable[str] = (), watch: bool | None = None
    ) -> None:
        """How to read the configuration.

        Args:
            read: gives the settings, and fills the set that it is given with the files and directories looked at.
            seen: those of the first time.
            watch: whether to follow these; None for what the configuration says.
        """
        self._read = read
        self._watch = watch
        self._files = None
        if seen:
            from meshlib.config.file_watch import FileWatch

            self._files = FileWatch(seen, self._reread)
        if not seen and (watch or (watch is None and self._wiring.settings.watch is not None)):
            _log.warning("watch: the configuration was read from no file, so there is none to follow")

    def reload(self, read: Callable[[set[str]], MeshSettings] | None = None) -> tuple[str, ...]:
        """Read the configuration again, and go by it from now on.

        Args:
            read: how, from now on; None for as before.

        Returns:
            What is different, a sentence each.

        Raises:
            ConfigError: if it is wrong, or asks for what cannot be changed in a mesh that runs; then nothing changes.
            MeshClosed: if the mesh was closed.
        """
        seen: set[str] = set()
        changes = self._reread(seen, read)
        with self._reading:
            if read is not None or self._files is None:
                self.read_by(read or self._read, seen, self._watch)
            else:
                self._files.settle(seen)
        self.follow()
        return changes

    def _reread(self, seen: set[str], read: Callable[[set[str]], MeshSettings] | None = None) -> tuple[str, ...]:
        with self._reading:  # so that the last to read is the last whose settings come into force
            if self._wiring.closed:
                raise MeshClosed("the mesh was closed; make a new one")
            settings = (read or self._read)(seen)
            with self._lock:
                done = self._apply(settings, self._laid)
                self._written = settings
        changes = tuple(map(str, self._told(*done)))
        if changes:
            source = settings.sources[0] if settings.sources else "the configuration"
            self._wiring.bus.emit(events.ConfigReloaded(source=source, changes=changes))
        return changes

    # Following files

    @property
    def _interval_s(self) -> float | None:
        """How often files are looked at; None for never."""
        written = self._wiring.settings.watch
        if self._watch is False or (written is None and self._watch is None) or self._files is None:
            return None
        return (written or WatchSettings()).interval_s

    def follow(self) -> None:
        """Follow the files of the configuration, if that is asked for. Any thread."""
        interval_s = self._interval_s
        if interval_s is None:
            return
        with self._beginning:
            if self._following:
                return
            self._following = True
        try:
            self._wiring.control.call(partial(self._look_in, interval_s))
        except MeshError:  # it was closed, or can have no thread
            self._following = False

    def _look_in(self, delay_s: float) -> None:
        """On the control thread."""
        self._wiring.control.call_later(delay_s, lambda: start_thread(self._look, "meshlib-config"))

    def _look(self) -> None:
        """Look at the files, in a thread of its own."""
        interval_s, files = self._interval_s, self._files
        if interval_s is None or files is None or self._wiring.closed:
            self._following = False
            return
        soon_s, refused = interval_s, None
        try:
            soon_s, refused = files.look()
        except MeshClosed:
            pass
        except Exception:
            _log.exception("the configuration could not be read again")
            files.settle(files.paths)
        if refused is not None:
            settings = self._wiring.settings
            source = settings.sources[0] if settings.sources else "the configuration"
            detail = "; ".join(refused.problems) or refused.message
            self._wiring.bus.emit(events.ConfigRefused(source=source, detail=detail))
        with suppress(RuntimeError):  # the mesh was closed
            self._wiring.control.call_soon(partial(self._look_in, min(soon_s, interval_s)))

    def configure(self, settings: MeshSettings) -> list[Difference]:
        """Go by these settings, as they are written, from now on.

        Returns:
            What is different.

        Raises:
            ConfigError: if they ask for what cannot be changed in a mesh that runs; then nothing changes.
            MeshClosed: if the mesh was closed.
        """
        with self._lock:
            done = self._apply(settings, self._laid)
            self._written = settings
        return self._told(*done)

    def configure_services(self, services: Mapping[str, Laid | None]) -> list[Difference]:
        """Lay settings over those that are written; None takes away what was laid over a service.

        All at once, so that the routes of one may lead to subsets of another. They stay over a reload.

        Raises:
            ConfigError: if a route leads to a subset that is not there; then nothing changes.
            MeshClosed: if the mesh was closed.
        """
        with self._lock:
            laid = {name: each for name, each in {**self._laid, **services}.items() if each is not None}
            done = self._apply(self._written, laid)
            self._laid = laid
        return self._told(*done)

    def _apply(self, written: MeshSettings, laid: Mapping[str, Laid]) -> tuple[MeshSettings, MeshSettings]:
        wiring = self._wiring
        if wiring.closed:
            raise MeshClosed("the mesh was closed; make a new one")
        old, settings = wiring.settings, _with(written, laid)
        if self._mode is not None:
            settings = replace(settings, mode=self._mode)
        _check(old, settings)
        self._swap(wiring, old, settings)
        self._keep_mode()
        return old, settings

    def _swap(self, wiring: Wiring, old: MeshSettings, settings: MeshSettings) -> None:
        # What may be refused comes first. New services are there before hosts lead to them.
        fleet = self._fleet(old, settings)
        sources = self.sources_of(settings) if self._of_sources else wiring.sources
        if fleet is not None and wiring.fleet is not None and fleet is not wiring.fleet:
            fleet.succeed(wiring.fleet)
        before = wiring.snapshots.current.services
        wiring.snapshots.reconfigure(settings, written_endpoints(settings) if self._of_endpoints else {}, fleet)
        wiring.plane.configure(settings)
        wiring.settings = settings
        if fleet is not wiring.fleet:
            if wiring.fleet is not None:
                # Calls under way end with the gates that they went through.
                wiring.later(_LINGER_S, wiring.fleet.close)
            wiring.fleet = fleet
        if sources != wiring.sources:
            wiring.sources = sources
            wiring.directory.renew(sources, wiring.held)
        for view in before.values():
            # A pool is counted for a limit over all pools of a service from its first connection on, or never.
            if _is_capped(view) is not _is_capped(wiring.snapshots.current.services.get(view.name, view)):
                for endpoint in view.endpoints:
                    wiring.drain(endpoint)
        if wiring.control.started:
            wiring.soon(wiring.follow_checks)
        if wiring.eager:
            for name in settings.services:
                wiring.plane.service(name)

    def _fleet(self, old: MeshSettings, settings: MeshSettings) -> SharedGates | None:
        before = self._wiring.fleet
        if not self._of_fleet or (before is not None and settings.redis == old.redis):
            return before
        return fleet_of(settings, self._wiring.fleet_changed)

    def _told(self, old: MeshSettings, new: MeshSettings) -> list[Difference]:
        """What is different. Without the lock: who listens to events may change the settings again."""
        from meshlib.config.difference import differences

        if old.mode != new.mode:
            self._wiring.bus.emit(events.ModeChanged(old=old.mode, new=new.mode))
        return differences(old, new)

    def after_fork(self) -> None:
        """In the child: another thread of the parent may have been in the middle of a change."""
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._beginning = threading.Lock()
        self._following = False  # until its own first use of a service
        self._keep_mode()


def written_endpoints(settings: MeshSettings) -> Mapping[str, tuple[Endpoint, ...]]:
    """The endpoints that the configuration itself names, by service: a first call need not wait for them."""
    written = [source.services for source in settings.discovery if isinstance(source, StaticSettings)]
    if len(written) == 1:
        return written[0]
    return {name: endpoints for services in written for name, endpoints in services.items()}


def fleet_of(settings: MeshSettings, on_change: Callable[[bool, str], None]) -> SharedGates | None:
    """What reaches beyond this process; None for a mesh where nothing does."""
    breakers = [cluster.breaker for service in settings.services.values() for cluster in service.clusters.values()]
    if settings.redis is None and all(each is None or isinstance(each, BreakerSettings) for each in breakers):
        return None
    from meshlib.fleet.shared import SharedGates

    return SharedGates(settings.redis, on_change)


def _is_capped(view: ServiceView) -> bool:
    return view.settings.clusters[None].limits.max_connections is not None


def _with(settings: MeshSettings, laid: Mapping[str, Laid]) -> MeshSettings:
    if not laid:
        return settings
    made = {name: each if isinstance(each, ServiceSettings) else each(settings) for name, each in laid.items()}
    return replace(settings, services={**settings.services, **made})


def _check(old: MeshSettings, new: MeshSettings) -> None:
    """Refuse what a mesh that runs cannot do.

    Raises:
        ConfigError: saying all that is wrong.
    """
    problems = [*_fixed(old, new), *_astray(new)]
    if problems:
        raise ConfigError("the configuration cannot be changed to this: " + "; ".join(problems))


def _fixed(old: MeshSettings, new: MeshSettings) -> Iterator[str]:
    if old.wire != new.wire:
        yield (
            f"wire: cannot change from {old.wire!r} to {new.wire!r} in a mesh that runs, since its connections are of"
            " that kind; restart the process"
        )


def _astray(settings: MeshSettings) -> Iterator[str]:
    for name, service in settings.services.items():
        for route in service.routes:
            targets = [(each.service, each.subset) for each in route.backends]
            targets += [(each.service, each.subset) for each in route.mirrors]
            for target, subset in targets:
                there = settings.services.get(target)
                if subset is not None and (there is None or subset not in there.clusters):
                    yield f"services.{name}: route {route.name!r} leads to {target}/{subset}, which nobody defines"
