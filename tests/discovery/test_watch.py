"""Watches run: started at first use, ended when unused, restarted after trouble, never lost."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.config.settings import StaticSettings
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.source import UNKNOWN, Source
from meshlib.discovery.static import StaticSource
from meshlib.discovery.watch import Directory, Resolution, ResolutionState
from tests.discovery.support import Published, Scripted, endpoint, until

Make = Callable[..., Directory]


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def make(control: ControlPlane, published: Published) -> Iterator[Make]:
    made: list[Directory] = []

    def make(*sources: Source, publish: Any = None, **settings: Any) -> Directory:
        settings.setdefault("on_event", published.event)
        settings.setdefault("rng", random.Random(1))
        directory = Directory(sources, control, publish or published, **settings)
        made.append(directory)
        return directory

    yield make
    for directory in made:
        directory.close()


def test_a_service_is_watched_from_its_first_use(make: Make, published: Published, control: ControlPlane) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source)
    assert not control.started
    for _ in range(100):
        directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    assert published.ports("orders") == [1]
    assert source.opened == 1
    source.say("orders", (endpoint(1), endpoint(2)))
    until(lambda: published.ports("orders") == [1, 2])
    assert directory.resolution("orders") == published.now["orders"]


def test_what_is_written_is_published_without_a_loop(make: Make, published: Published, control: ControlPlane) -> None:
    later = Scripted()
    later.say("orders", (endpoint(2),))
    directory = make(StaticSource(StaticSettings({"orders": (endpoint(1),), "nobody": ()})), later)
    directory.use("orders")
    directory.use("nobody")
    until(lambda: published.state("orders") == "ok")
    until(lambda: published.state("nobody") == "empty")
    assert published.ports("orders") == [1]
    assert directory.status()["orders"].source == "static"
    assert directory.ages() == {"orders": 0.0}
    assert not control.looping
    directory.close()
    assert directory.status() == {}
    assert later.opened == 0
    assert not later.released


def test_what_is_not_written_is_asked_of_the_next_source(make: Make, published: Published) -> None:
    later = Scripted()
    later.say("carts", (endpoint(2),))
    directory = make(StaticSource(StaticSettings({"orders": (endpoint(1),)})), later)
    directory.use("orders")
    directory.use("carts")
    until(lambda: published.ports("carts") == [2])
    assert published.ports("orders") == [1]
    directory.close()
    assert later.watching == 0
    assert later.released


def test_where_all_is_written_a_strange_name_is_unknown_and_forgotten_without_a_loop(
    make: Make, published: Published, control: ControlPlane
) -> None:
    directory = make(StaticSource(StaticSettings({"orders": (endpoint(1),)})), unused_s=0.1)
    directory.use("strange")
    directory.use("orders")
    until(lambda: {kind for kind, _, _ in published.events} == {"ok", "unknown", "forgotten"})
    until(lambda: directory.status() == {})
    assert published.now == {"orders": None, "strange": None}
    assert not control.looping


def test_what_is_written_is_forgotten_when_unused_also_if_a_loop_came_meanwhile(
    make: Make, published: Published, control: ControlPlane
) -> None:
    directory = make(StaticSource(StaticSettings({"orders": (endpoint(1),)})), unused_s=0.3)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    control.run_sync(lambda: asyncio.sleep(0), 5)
    until(lambda: published.now["orders"] is None)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    assert [kind for kind, _, _ in published.events] == ["ok", "forgotten", "ok"]


def test_nothing_is_published_before_there_is_an_answer(make: Make, published: Published) -> None:
    source = Scripted()
    directory = make(source)
    directory.use("orders")
    until(lambda: source.opened)
    assert published.all == []
    assert directory.status()["orders"].state is ResolutionState.PENDING
    assert directory.status()["orders"].age_s is None
    assert directory.ages() == {}


def test_first_use_by_many_threads_at_once_starts_one_watch(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source)
    barrier = threading.Barrier(16)

    def go() -> None:
        barrier.wait()
        directory.use("orders")

    threads = [threading.Thread(target=go) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: published.state("orders") == "ok")
    assert source.opened == 1


def test_an_unchanged_answer_is_not_published_again(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    make(source).use("orders")
    until(lambda: published.state("orders") == "ok")
    for _ in range(5):
        source.say("orders", (endpoint(1),))
    source.say("orders", (endpoint(2),))
    until(lambda: published.ports("orders") == [2])
    assert len(published.all) == 2
    assert [kind for kind, _, _ in published.events] == ["ok"]


def test_the_next_source_is_asked_and_dropped_when_the_first_takes_over(make: Make, published: Published) -> None:
    first, second = Scripted("first"), Scripted("second")
    first.say("orders", UNKNOWN)
    second.say("orders", (endpoint(2),))
    make(first, second).use("orders")
    until(lambda: published.ports("orders") == [2])
    first.say("orders", (endpoint(1),))
    until(lambda: published.ports("orders") == [1])
    until(lambda: second.watching == 0)
    assert first.watching == 1


def test_a_registry_that_is_away_keeps_the_last_good_set_and_its_return_is_seen_within_a_second(
    make: Make, published: Published
) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    source.say("orders", ConnectionError("refused"))
    until(lambda: published.state("orders") == "stale")
    assert published.ports("orders") == [1]
    until(lambda: directory.ages()["orders"] > 0.05)
    until(lambda: source.opened > 4)
    source.say("orders", (endpoint(1), endpoint(2)))
    began = time.monotonic()
    until(lambda: published.ports("orders") == [1, 2])
    assert time.monotonic() - began < 1.5
    assert directory.ages() == {"orders": 0.0}
    assert [kind for kind, _, _ in published.events] == ["ok", "stale", "ok"]
    assert "refused" in published.events[1][2]


def test_a_registry_that_was_never_there_is_unwell_and_says_why(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", ConnectionError("refused"))
    directory = make(source, Scripted("never asked"))
    directory.use("orders")
    until(lambda: published.state("orders") == "unwell")
    status = directory.status()["orders"]
    assert (status.source, status.error, status.endpoints, status.age_s) == ("scripted", "refused", 0, None)
    assert source.watching <= 1


def test_an_empty_answer_is_held_back_and_then_believed(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    make(source, empty_hold_s=0.2).use("orders")
    until(lambda: published.state("orders") == "ok")
    source.say("orders", ())
    until(lambda: published.state("orders") == "stale")
    began = time.monotonic()
    until(lambda: published.state("orders") == "empty")
    assert time.monotonic() - began > 0.1


def test_an_unused_service_is_forgotten_and_its_next_use_starts_anew(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source, unused_s=0.15)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    until(lambda: published.now["orders"] is None)
    until(lambda: source.watching == 0)
    assert directory.status() == {}
    assert published.events[-1][0] == "forgotten"
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    assert source.opened == 2


def test_a_name_that_nobody_knows_is_forgotten_sooner(
    make: Make, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshlib.discovery.service_watch._UNKNOWN_S", 0.15)
    source = Scripted()
    source.say("orders", (endpoint(1),))
    source.say("nobody", UNKNOWN)
    directory = make(source)
    directory.use("orders")
    directory.use("nobody")
    until(lambda: published.state("nobody") == "unknown")
    until(lambda: "nobody" not in directory.status())
    assert published.state("orders") == "ok"


def test_a_service_in_use_is_not_forgotten(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source, unused_s=0.2)
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        directory.use("orders")
        time.sleep(0.01)
    assert source.opened == 1
    assert (None) not in [resolution for _, resolution in published.all]


def test_use_while_services_are_being_forgotten_never_leaves_one_unwatched(make: Make, published: Published) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source, unused_s=0.004)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        directory.use("orders")
        time.sleep(random.uniform(0.0, 0.008))
    directory.use("orders")
    assert directory.status().keys() <= {"orders"}
    until(lambda: source.watching <= 1)


def test_an_error_in_publish_or_in_a_listener_does_not_end_the_watch(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def publish(service: str, resolution: Resolution | None) -> None:
        seen.append(len(resolution.endpoints) if resolution is not None else 0)
        raise ValueError("the listener is broken")

    source = Scripted()
    source.say("orders", (endpoint(1),))
    with caplog.at_level(logging.ERROR, "meshlib"):
        make(source, publish=publish, on_event=publish).use("orders")
        until(lambda: seen == [1])
        source.say("orders", (endpoint(1), endpoint(2)))
        until(lambda: seen == [1, 2])
    assert "could not be published" in caplog.text


def test_without_a_listener_each_change_of_state_is_one_log_line(
    make: Make, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    source = Scripted()
    source.say("orders", ConnectionError("refused"))
    with caplog.at_level(logging.INFO, "meshlib"):
        make(source, on_event=None).use("orders")
        until(lambda: source.opened > 3)
        source.say("orders", (endpoint(1),))
        until(lambda: published.state("orders") == "ok")
    lines = [record.getMessage() for record in caplog.records if record.name == "meshlib"]
    assert lines == [
        "discovery of orders: unwell (scripted cannot be asked: refused)",
        "discovery of orders: ok (1 endpoint from scripted)",
    ]


def test_close_ends_every_generator_and_releases_the_sources(make: Make, published: Published) -> None:
    sources = Scripted("first"), Scripted("second")
    directory = make(*sources)
    for number in range(20):
        sources[0].say(f"s{number}", UNKNOWN)
        sources[1].say(f"s{number}", (endpoint(number + 1),))
        directory.use(f"s{number}")
    until(lambda: len(published.now) == 20 and sources[1].watching == 20)
    directory.close()
    assert [source.watching for source in sources] == [0, 0]
    assert all(source.released for source in sources)
    directory.use("s1")
    assert directory.status() == {}


def test_a_source_that_does_not_close_in_time_is_logged_and_left(
    control: ControlPlane, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    class Clinging(Scripted):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    source = Clinging()
    source.say("orders", (endpoint(1),))
    directory = Directory([source], control, published)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    with caplog.at_level(logging.WARNING, "meshlib"):
        directory.close(timeout_s=0.05)
    assert "discovery did not end cleanly" in caplog.text


def test_closing_the_control_plane_alone_leaks_no_generator(published: Published) -> None:
    control = ControlPlane()
    source = Scripted()
    source.say("orders", (endpoint(1),))
    Directory([source], control, published).use("orders")
    until(lambda: published.state("orders") == "ok")
    control.close()
    assert source.watching == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_watches_for_itself_and_keeps_what_it_inherited_until_then(
    make: Make, published: Published
) -> None:
    source = Scripted()
    source.say("orders", (endpoint(1),))
    directory = make(source)
    directory.use("orders")
    until(lambda: published.state("orders") == "ok")
    pid = os.fork()
    if pid == 0:
        try:
            source.say("orders", ConnectionError("away"))
            directory.use("orders")
            until(lambda: published.state("orders") == "stale")
            assert published.ports("orders") == [1]
            source.say("orders", (endpoint(7),))
            until(lambda: published.ports("orders") == [7])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    source.say("orders", (endpoint(1), endpoint(2)))
    until(lambda: published.ports("orders") == [1, 2])


def test_the_back_off_is_the_sources_own_if_it_has_one(make: Make) -> None:
    from meshlib.discovery.resolver import Retry

    source = Scripted()
    source.retry = Retry(30.0, 30.0)  # type: ignore[attr-defined]
    source.say("orders", ConnectionError("away"))
    make(source, rng=random.Random(3)).use("orders")
    until(lambda: source.closed == 1)
    time.sleep(0.3)
    assert source.opened == 1
