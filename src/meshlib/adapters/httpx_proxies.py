"""The proxies that the environment names, for hosts outside the mesh: plain clients of httpx go through them, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

__all__ = ["Proxies"]


class Proxies:
    """``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, read when the first request asks."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: Mapping[str, str] | None = None

    def of(self, url: httpx.URL) -> str | None:
        """The proxy's URL; None for none."""
        from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]

        named = self._named
        if named is None:
            named = self._named = getproxies()
        proxy = named.get(url.scheme) or named.get("all")
        if not proxy or proxy_bypass_environment(url.netloc.decode("ascii"), dict(named)):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"
