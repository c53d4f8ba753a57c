"""What a route does to a call on its way: rewrite it, answer it here, copy it elsewhere, keep it at one backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshlib.dataclass import dataclass, field

if TYPE_CHECKING:
    from meshlib.routing.regex import CompiledRegex

__all__ = ["REDIRECT_STATUSES", "DirectResponse", "Mirror", "Redirect", "RegexRewrite", "Rewrite", "Sticky"]

REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    r"""A substitution in the path, as Envoy's ``regex_rewrite``.

    Attributes:
        pattern: what is replaced, wherever it matches.
        substitution: what with; ``\1`` is the first group.
    """

    pattern: str
    substitution: str
    compiled: CompiledRegex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from meshlib.routing.regex import compile_regex

        object.__setattr__(self, "compiled", compile_regex(self.pattern))


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change of the request's path (by at most one of the first three), and of its host.

    Attributes:
        path: instead of the whole path.
        prefix: instead of the prefix by which the route matched.
        regex: a substitution in the path.
        host: instead of the authority.
    """

    path: str | None = None
    prefix: str | None = None
    regex: RegexRewrite | None = None
    host: str | None = None

    @property
    def changes_path(self) -> bool:
        """Whether the path is changed, and not the host alone."""
        return self.path is not None or self.prefix is not None or self.regex is not None


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the caller elsewhere; what is not given stays as it was asked for.

    Attributes:
        path, prefix, regex: of the new location; at most one. See `Rewrite`.
        host, port, scheme: of the new location.
        status: one of `REDIRECT_STATUSES`.
        strip_query: whether the query is left out.
    """

    path: str | None = None
    prefix: str | None = None
    regex: RegexRewrite | None = None
    host: str | None = None
    port: int | None = None
    scheme: str | None = None
    status: int = 301
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """An answer given here. Headers and body may hold secrets.

    Attributes:
        status: of the response.
        body: as sent.
        headers: with names in lower case.
    """

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Mirror:
    """A cluster that gets a copy of calls.

    Attributes:
        service, subset: the cluster.
        percent: of the calls that it gets.
    """

    service: str
    subset: str | None = None
    percent: float = 100.0

    @property
    def cluster(self) -> str:
        """The name of the cluster: ``orders`` or ``orders/v2``."""
        return self.service if self.subset is None else f"{self.service}/{self.subset}"


@dataclass(frozen=True, slots=True)
class Sticky:
    """What the draw of the backend goes by, so that a user stays at one; exactly one of its fields.

    Attributes:
        header, cookie, query: the name of what is hashed.
        hash_key: what the caller gave as such is hashed.
        number: the name of a header whose number is the draw itself, modulo the sum of the weights (Envoy's
            ``header_name``).
    """

    header: str | None = None
    cookie: str | None = None
    query: str | None = None
    hash_key: bool = False
    number: str | None = None
