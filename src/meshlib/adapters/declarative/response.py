"""An answer with what is beside its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import httpx

    from meshlib.policy.record import Record

__all__ = ["Response"]

T = TypeVar("T")


@dataclass(frozen=True)
class Response(Generic[T]):
    """What a method returns that says so: ``-> Response[Order]``.

    Attributes:
        body: of the declared type.
        status: of the answer.
        headers: of the answer.
        record: what happened to the call; None if it did not go through the mesh.
    """

    body: T
    status: int
    headers: httpx.Headers
    record: Record | None
