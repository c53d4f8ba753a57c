"""`meshlib.fallback`: a lesser answer for errors of the mesh, and for nothing else."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import pytest

from meshlib.degradation import fallback
from meshlib.errors import CircuitOpen, DeadlineExceeded, MeshError, NoEndpoint

pytestmark = pytest.mark.anyio


def test_a_value_takes_the_place_of_an_error() -> None:
    @fallback(value=())
    def names(error: MeshError | None) -> tuple[str, ...]:
        """Doc."""
        if error is not None:
            raise error
        return ("a",)

    assert_type(names(None), tuple[str, ...] | tuple[()])
    assert names(None) == ("a",)
    assert names(NoEndpoint("none left", service="orders")) == ()
    assert (names.__name__, names.__doc__) == ("names", "Doc.")
    assert list(inspect.signature(names).parameters) == ["error"]


def test_a_function_of_the_error_is_called() -> None:
    @fallback(call=lambda error: f"lesser: {error.service}")
    def work() -> str:
        raise NoEndpoint("none left", service="orders")

    assert work() == "lesser: orders"


async def test_async_functions_take_both_and_an_async_call() -> None:
    async def ask_elsewhere(error: MeshError) -> int:
        return len(error.service)

    @fallback(value=None)
    async def valued() -> str:
        raise DeadlineExceeded

    @fallback(call=ask_elsewhere)
    async def called() -> str:
        raise NoEndpoint(service="orders")

    @fallback(call=lambda error: error.service)
    async def called_plainly(fails: bool) -> str:
        if fails:
            raise NoEndpoint(service="orders")
        return "fine"

    assert_type(await valued(), str | None)
    assert_type(await called(), str | int)
    assert await valued() is None
    assert await called() == 6
    assert await called_plainly(True) == "orders"
    assert await called_plainly(False) == "fine"
    assert inspect.iscoroutinefunction(valued)


@pytest.mark.parametrize("error", [KeyError("bug"), TimeoutError(), ConnectionError(), KeyboardInterrupt()])
def test_what_is_no_error_of_the_mesh_is_seen(error: BaseException) -> None:
    @fallback(value=())
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        work()


def test_only_the_named_errors_are_caught() -> None:
    @fallback(value="lesser", on=(CircuitOpen, NoEndpoint))
    def work(error: MeshError) -> str:
        raise error

    assert work(CircuitOpen()) == "lesser"
    with pytest.raises(DeadlineExceeded):
        work(DeadlineExceeded())


def test_an_error_of_the_fallback_itself_keeps_its_cause() -> None:
    def fail(error: MeshError) -> None:
        raise KeyError("nothing cached")

    @fallback(call=fail)
    def work() -> None:
        raise NoEndpoint

    with pytest.raises(KeyError) as caught:
        work()
    assert isinstance(caught.value.__context__, NoEndpoint)


def test_generators_are_refused_when_they_are_decorated() -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    for generator in (plain, asynchronous):
        with pytest.raises(TypeError, match=f"cannot wrap the generator .*{generator.__name__}"):
            fallback(value=())(generator)


def test_wrong_use_is_refused_when_it_is_written() -> None:
    async def later(error: MeshError) -> int:
        return 1

    with pytest.raises(TypeError, match="either value= or call="):
        fallback()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="either value= or call="):
        fallback(value=1, call=str)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="errors of the mesh only"):
        fallback(value=1, on=ValueError)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not async"):
        fallback(call=later)(lambda: 1)
