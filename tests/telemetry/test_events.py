"""Events: what they say, who is told, and how often the log says it."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from meshlib.telemetry import events
from meshlib.telemetry.bus import EventBus
from meshlib.telemetry.events import BreakerClosed, BreakerOpened, Ejected, Event, from_discovery
from tests.clock import Clock

OPENED = BreakerOpened(service="orders", cluster="orders/v2", for_s=5.0)
CLOSED = BreakerClosed(service="orders", cluster="orders/v2")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus(clock: Clock, caplog: pytest.LogCaptureFixture) -> EventBus:
    caplog.set_level(logging.INFO, logger="meshlib")
    return EventBus(clock=clock)


def test_subscribers_are_told_until_they_leave(bus: EventBus) -> None:
    seen: list[Event] = []
    also: list[Event] = []
    leave = bus.subscribe(seen.append)
    bus.subscribe(also.append)

    bus.emit(OPENED)
    leave()
    leave()
    bus.emit(CLOSED)

    assert seen == [OPENED]
    assert also == [OPENED, CLOSED]


def test_a_subscription_ends_only_itself(bus: EventBus) -> None:
    seen: list[Event] = []
    first = bus.subscribe(seen.append)
    bus.subscribe(seen.append)
    first()

    bus.emit(OPENED)

    assert seen == [OPENED]


def test_a_subscriber_that_could_not_be_called_is_refused_at_once(bus: EventBus) -> None:
    async def nobody_awaits(event: Event) -> None: ...

    none: Any = "a function"
    for wrong in (none, nobody_awaits):
        with pytest.raises(TypeError, match="a function that takes an event"):
            bus.subscribe(wrong)


def test_a_subscriber_that_fails_is_logged_and_harms_nobody(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    def fail(_: Event) -> None:
        raise RuntimeError("my own bug")

    bus.subscribe(fail)
    bus.subscribe(seen.append)
    bus.emit(OPENED)

    assert seen == [OPENED]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "meshlib"
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_a_subscriber_may_emit_and_subscribe(bus: EventBus) -> None:
    seen: list[str] = []

    def react(event: Event) -> None:
        seen.append(event.kind)
        if event is OPENED:
            bus.emit(CLOSED)
            bus.subscribe(lambda _: None)

    bus.subscribe(react)
    bus.emit(OPENED)

    assert seen == ["breaker_opened", "breaker_closed"]


def test_the_log_has_one_line_per_change(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.emit(OPENED)
    bus.emit(CLOSED)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "orders/v2: its circuit is open: calls are refused at once for 5 s"),
        ("INFO", "orders/v2: its circuit is closed: calls pass again"),
    ]


def test_the_same_is_logged_once_in_ten_seconds_and_the_rest_is_counted(
    bus: EventBus, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    for _ in range(4):
        bus.emit(OPENED)
        clock.now += 1
    assert len(caplog.records) == 1

    clock.now += 6
    bus.emit(OPENED)

    assert len(seen) == 5
    assert [record.getMessage() for record in caplog.records][1:] == [
        "orders/v2: its circuit is open: calls are refused at once for 5 s (and 3 more like it in the 10 s before)"
    ]


def test_what_is_about_something_else_is_not_held_back(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    for endpoint in ("10.0.0.1:80", "10.0.0.2:80"):
        bus.emit(Ejected(service="orders", cluster="orders", endpoint=endpoint, for_s=30, failures=5))

    assert [record.getMessage() for record in caplog.records] == [
        "orders: 10.0.0.1:80 was ejected for 30 s, 5 failures in a row",
        "orders: 10.0.0.2:80 was ejected for 30 s, 5 failures in a row",
    ]


@pytest.mark.parametrize(
    ("flaps", "last"),
    [
        ([OPENED, CLOSED, OPENED, CLOSED, OPENED], "open: "),
        ([OPENED, CLOSED, OPENED, CLOSED], "closed: "),
        ([OPENED, CLOSED, OPENED], "open: "),
    ],
)
def test_the_log_never_ends_on_a_state_that_was_left(
    bus: EventBus, clock: Clock, caplog: pytest.LogCaptureFixture, flaps: list[Event], last: str
) -> None:
    for event in flaps:
        bus.emit(event)
        clock.now += 0.5

    for _ in range(50):
        clock.now += 0.5
        bus.flush()

    assert last in caplog.records[-1].getMessage()


def test_another_event_also_writes_what_was_held_back(
    bus: EventBus, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bus.emit(OPENED)
    bus.emit(OPENED)
    clock.now += 10
    bus.emit(from_discovery("stale", "cart", "consul: connection refused"))

    assert [record.getMessage() for record in caplog.records][1:] == [
        "orders/v2: its circuit is open: calls are refused at once for 5 s",
        "cart: consul: connection refused",
    ]


def test_nothing_is_kept_of_endpoints_that_come_and_go_for_ever(bus: EventBus, clock: Clock) -> None:
    for number in range(25_000):
        clock.now += 0.01
        bus.emit(Ejected(service="orders", cluster="orders", endpoint=f"10.0.0.1:{number}", for_s=30.0, failures=5))
    assert len(bus._written) <= 12_000
    assert len(bus._logged) <= 1_001


def test_events_are_delivered_where_the_mesh_says(clock: Clock) -> None:
    work: list[Callable[[], None]] = []
    bus = EventBus(clock=clock, deliver=work.append)
    seen: list[Event] = []
    bus.subscribe(seen.append)

    bus.emit(OPENED)
    assert not seen
    for each in work:
        each()

    assert seen == [OPENED]


def test_where_nothing_can_be_delivered_any_more_it_is_done_at_once(clock: Clock) -> None:
    def closed(_: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    bus = EventBus(clock=clock, deliver=closed)
    seen: list[Event] = []
    bus.subscribe(seen.append)

    bus.emit(OPENED)

    assert seen == [OPENED]


def test_many_threads_may_emit(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)

    def emit() -> None:
        for _ in range(200):
            bus.emit(OPENED)

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 1600


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ok", events.DiscoveryReady),
        ("stale", events.DiscoveryStale),
        ("unwell", events.DiscoveryUnwell),
        ("unknown", events.ServiceUnknown),
        ("empty", events.ServiceEmpty),
        ("forgotten", events.ServiceForgotten),
    ],
)
def test_what_discovery_tells_becomes_an_event(kind: str, expected: type[Event]) -> None:
    event = from_discovery(kind, "orders", "in words")

    assert type(event) is expected
    assert str(event) == "orders: in words"


def test_what_discovery_may_tell_one_day_is_not_lost() -> None:
    assert str(from_discovery("odd", "orders", "in words")) == "orders: odd: in words"


def test_each_event_has_a_kind_of_its_own_and_a_sentence() -> None:
    classes = [getattr(events, name) for name in events.__all__ if name not in ("Event", "from_discovery")]
    fields = {"cluster": "c", "endpoint": "e", "for_s": 1.0, "failures": 1, "members": 2, "in_flight": 1, "pending": 0}
    fields |= {"gate": "throttle", "refused": 3, "source": "mesh.yaml", "detail": "why", "old": "on", "new": "off"}
    fields |= {"policy": "throttle", "differed": 2, "proxy": "Istio", "quiet": 11, "endpoints": 20}
    fields |= {"limit": 4, "notice_s": 5.0, "took_s": 5.1}
    kinds = set()
    for each in classes:
        event = each(service="orders", **{name: fields[name] for name in each.__dataclass_fields__ if name in fields})
        kinds.add(event.kind)
        assert event.text
        assert event.family
        assert pickle.loads(pickle.dumps(event)) == event
        with pytest.raises(AttributeError):
            event.service = "other"

    assert len(kinds) == len(classes)
