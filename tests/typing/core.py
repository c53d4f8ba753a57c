"""What a type checker sees of errors and context. `python3 dev.py types` reads this file; nothing runs it."""

from typing import assert_type

from meshlib.context import carry, detached, timeout
from meshlib.errors import DeadlineExceeded, MeshError


def errors_tell_whether_to_try_again(error: MeshError) -> None:
    assert_type(error.retryable, bool | None)
    assert_type(error.service, str)


def each_reason_is_a_mesh_error() -> type[MeshError]:
    return DeadlineExceeded


def carrying_context_keeps_a_signature() -> None:
    def work(order: int, *, dry: bool = False) -> str:
        return f"{order} {dry}"

    carried = carry(work)
    assert_type(carried(1, dry=True), str)
    carried("one")  # type: ignore[arg-type]


def deadlines_are_context_managers() -> int:
    with timeout("2s"), detached():
        value = 1
    return value


@timeout("2s")
def decorated(order: int) -> str:
    return str(order)


@timeout("2s")
async def decorated_too(order: int) -> str:
    return str(order)


async def decorating_keeps_a_signature() -> None:
    assert_type(decorated(1), str)
    assert_type(await decorated_too(1), str)
