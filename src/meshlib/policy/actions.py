"""What the call state machine asks its driver to do. See `meshlib.policy.call`."""

from __future__ import annotations

from typing import TypeAlias

from meshlib.balance.balancer import Member
from meshlib.dataclass import dataclass, field
from meshlib.errors import MeshError

__all__ = ["Action", "Cancel", "Deliver", "Fail", "Reply", "Start"]


@dataclass(slots=True, eq=False)
class Start:
    """Begin attempt `n` at `member`.

    Attributes:
        n: the attempt's number, from 1.
        member: where to.
        cluster: the name of the cluster.
        timeout_s: how long it may take, up to the headers; None for no limit.
        deadline: the same as a point on the monotonic clock.
        body_deadline: by which the body must be there: the call's deadline if the call wants the whole body, else one
            that somebody set or inherited; None for none.
        headers: to add to the request, for this attempt only.
    """

    n: int
    member: Member
    cluster: str
    timeout_s: float | None
    deadline: float | None
    body_deadline: float | None
    headers: list[tuple[bytes, bytes]]


@dataclass(slots=True, eq=False)
class Cancel:
    """Give up attempt `n`: close its response or its connection. Nothing more is to be reported of it."""

    n: int


@dataclass(slots=True, eq=False)
class Deliver:
    """Hand the response of attempt `n` to the caller; then report `body_end`, `error` or `cancelled` of it."""

    n: int


@dataclass(slots=True, eq=False)
class Reply:
    """Answer the caller with a response made here; nothing was sent, and the call is over."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


@dataclass(slots=True, eq=False)
class Fail:
    """Raise `error` at the caller. Its record is not set yet."""

    error: MeshError


Action: TypeAlias = Start | Cancel | Deliver | Reply | Fail
