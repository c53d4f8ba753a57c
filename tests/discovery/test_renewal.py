"""Other sources of discovery in a process that runs: no service is ever without the endpoints that it has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from meshlib.config.settings import StaticSettings
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.source import UNKNOWN, Source
from meshlib.discovery.static import StaticSource
from meshlib.discovery.watch import Directory
from tests.discovery.support import Published, Scripted, endpoint, until

Make = Callable[..., Directory]


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def make(published: Published) -> Iterator[Make]:
    control = ControlPlane()
    made: list[Directory] = []

    def make(*sources: Source) -> Directory:
        made.append(Directory(sources, control, published, rng=random.Random(1), on_event=published.event))
        return made[-1]

    yield make
    for directory in made:
        directory.close()
    control.close()


def written(**ports: int) -> StaticSource:
    return StaticSource(StaticSettings({name: (endpoint(port),) for name, port in ports.items()}))


def scripted(name: str, **ports: int) -> Scripted:
    source = Scripted(name)
    for service, port in ports.items():
        source.say(service, (endpoint(port),))
    return source


def never_empty(published: Published, service: str) -> bool:
    known = [resolution for name, resolution in published.all if name == service]
    return all(resolution is not None and resolution.endpoints for resolution in known)


def test_endpoints_stay_until_the_new_source_has_answered_and_the_old_one_is_closed(
    make: Make, published: Published
) -> None:
    old, new = scripted("consul", orders=1), Scripted("dns")
    directory = make(old)
    directory.use("orders")
    until(lambda: published.ports("orders") == [1])
    directory.renew([new])
    until(lambda: published.state("orders") == "stale" and old.released and new.watching == 1)
    assert published.ports("orders") == [1]
    assert directory.status()["orders"].source == "consul, no longer asked"
    new.say("orders", (endpoint(2),))
    until(lambda: published.ports("orders") == [2] and published.state("orders") == "ok")
    assert old.watching == 0
    assert never_empty(published, "orders")


def test_a_source_of_the_same_name_that_is_empty_at_first_is_not_believed(make: Make, published: Published) -> None:
    old, new = scripted("consul", orders=1), Scripted("consul")
    new.say("orders", ())
    directory = make(old)
    directory.use("orders")
    until(lambda: published.ports("orders") == [1])
    directory.renew([new])
    until(lambda: new.watching == 1 and published.state("orders") == "stale")
    assert published.ports("orders") == [1]


def test_a_service_that_the_change_does_not_concern_is_watched_on(make: Make, published: Published) -> None:
    source = scripted("consul", stock=1)
    directory = make(written(orders=5), source)
    for name in ("orders", "stock"):
        directory.use(name)
        until(lambda name=name: published.state(name) == "ok")
    directory.renew([written(orders=6), source])
    until(lambda: published.ports("orders") == [6])
    assert (source.opened, source.released) == (1, False)
    assert [kind for kind, _, _ in published.events] == ["ok", "ok"]


def test_a_service_whose_written_endpoints_go_is_asked_of_the_others(make: Make, published: Published) -> None:
    source = scripted("consul", orders=7)
    directory = make(written(orders=5, other=1), source)
    directory.use("orders")
    until(lambda: published.ports("orders") == [5])
    directory.renew([written(other=1), source])
    until(lambda: published.ports("orders") == [7])
    assert never_empty(published, "orders")


def test_a_service_that_is_written_from_now_on_is_asked_of_nobody(make: Make, published: Published) -> None:
    source = scripted("consul", orders=7)
    directory = make(source)
    directory.use("orders")
    until(lambda: published.ports("orders") == [7])
    directory.renew([written(orders=5), source])
    until(lambda: published.ports("orders") == [5] and source.watching == 0)
    assert not source.released


def test_what_nobody_knows_any_more_is_believed_to_be_so(make: Make, published: Published) -> None:
    source = Scripted("consul")
    source.say("orders", UNKNOWN)
    directory = make(written(orders=5))
    directory.use("orders")
    until(lambda: published.ports("orders") == [5])
    directory.renew([source])
    until(lambda: published.state("orders") == "unknown")


def test_a_source_that_is_held_is_closed_with_the_directory(make: Make, published: Published) -> None:
    old, new = scripted("consul", orders=1), scripted("dns", orders=2)
    directory = make(old)
    directory.use("orders")
    until(lambda: published.ports("orders") == [1])
    directory.renew([new], held=[old])
    until(lambda: published.ports("orders") == [2] and old.watching == 0)
    assert not old.released
    directory.close()
    assert old.released and new.released


def test_sources_change_before_the_first_use(make: Make, published: Published) -> None:
    directory = make(scripted("consul", orders=1))
    directory.renew([scripted("dns", orders=2)])
    directory.use("orders")
    until(lambda: published.ports("orders") == [2])


def test_services_come_into_use_while_sources_change(make: Make, published: Published) -> None:
    sources = [scripted(f"source-{n}", **{f"s{i}": n + 1 for i in range(20)}) for n in range(5)]
    directory = make(sources[0])
    for number, source in enumerate(sources):
        directory.renew([source])
        for i in range(4 * number, 4 * number + 4):
            directory.use(f"s{i}")
    until(lambda: all(published.ports(f"s{i}") == [5] for i in range(20)))
    until(lambda: [source.watching for source in sources] == [0, 0, 0, 0, 20])
