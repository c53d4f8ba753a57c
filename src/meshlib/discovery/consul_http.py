"""One GET to a Consul agent: what may go wrong, in words for the one who has to mend it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshlib.config.settings import ConsulSettings
from meshlib.dataclass import dataclass
from meshlib.errors import ConfigError, DiscoveryUnavailable

if TYPE_CHECKING:
    import httpx

__all__ = ["Address", "ConsulHttp", "Reply"]

MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 4096
_ACCEPTED = frozenset({200, 404})
_CONNECT_TIMEOUT_S = 3.0
_TRANSFER_S = 30.0
"""How long the body of an answer may take beyond the timeout for its beginning: a peer that drips must not hang us."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the agent is."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `text` gives: ``http://127.0.0.1:8500``, or without the scheme.

        Raises:
            ConfigError: if it is none.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        if scheme not in ("http", "https") or not host:
            raise ConfigError(f"consul: the address {text!r} is not an HTTP URL; write it like http://127.0.0.1:8500")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("consul: the address holds a user name or password; Consul takes a `token` instead")
        return cls(scheme, host, port or (443 if scheme == "https" else 8500), parts.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of an accepted status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ConsulHttp:
    """Reads from a Consul agent.

    Each watch has a client of its own, so that cancelling one can harm no other, and a blocking query has a connection
    to itself in any case. No proxy and no credentials of the environment are used: the token goes to this address only.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self.address = Address.parse(settings.address)
        self._token = settings.token
        self._tls: ssl.SSLContext | None = None

    def client(self) -> httpx.AsyncClient:
        """Return a new client. The caller closes it."""
        import httpx

        if self.address.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        headers = {"accept-encoding": "identity", "user-agent": "meshlib"}
        if self._token:
            headers["x-consul-token"] = self._token
        return httpx.AsyncClient(
            base_url=str(self.address), headers=headers, verify=self._tls or False, trust_env=False, timeout=None
        )

    async def get(
        self,
        client: httpx.AsyncClient,
        path: str,
        params: Mapping[str, str],
        *,
        timeout_s: float,
        needs: str,
        service: str = "",
        keep_connection: bool = True,
        accept: frozenset[int] = _ACCEPTED,
    ) -> Reply:
        """Ask.

        Args:
            client: of `client`.
            path: what for.
            params: the query string.
            timeout_s: for the beginning of the answer, in seconds.
            needs: the permission that the token has to have, for the error that says so.
            service: for errors.
            keep_connection: False to close the connection afterwards.
            accept: the statuses that are answers.

        Raises:
            DiscoveryUnavailable: for any other status, and for no answer.
        """
        import httpx

        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
        headers = {} if keep_connection else {"connection": "close"}
        try:
            async with asyncio.timeout(timeout_s + _TRANSFER_S):
                async with client.stream("GET", path, params=params, timeout=timeout, headers=headers) as response:
                    if response.status_code in accept:
                        body = await self._read(response, service)
                        return Reply(response.status_code, response.headers, body)
                    said = await _read_some(response)
        except TimeoutError as error:
            raise self._unavailable("its answer did not end", service) from error
        except httpx.TimeoutException as error:
            phase = "no connection" if isinstance(error, httpx.ConnectTimeout) else f"no answer within {timeout_s:g} s"
            raise self._unavailable(phase, service) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._unavailable(str(error) or type(error).__name__, service) from error
        raise self._wrong_status(response.status_code, self._scrub(said), needs, service)

    def refused(self, why: str, service: str) -> DiscoveryUnavailable:
        """Return the error for an answer that cannot be used."""
        return self._unavailable(why, service)

    def malformed(self, why: object, service: str) -> DiscoveryUnavailable:
        """Return the error for an answer that is not what Consul answers."""
        return self._unavailable(f"its answer is malformed: {why}", service)

    async def _read(self, response: httpx.Response, service: str) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise self._unavailable(f"its answer is longer than {MAX_BODY_BYTES >> 20} MiB", service)
        return bytes(body)

    def _wrong_status(self, status: int, said: str, needs: str, service: str) -> DiscoveryUnavailable:
        told = f" ({said})" if said else ""
        if status in (401, 403):
            who = "its token is unknown to Consul, or lacks" if self._token else "no `token` is configured; it needs"
            return self._unavailable(f"it refused with {status}{told}: {who} {needs}", service)
        return self._unavailable(f"it answered {status}{told}", service)

    def _unavailable(self, why: str, service: str) -> DiscoveryUnavailable:
        return DiscoveryUnavailable(f"Consul at {self.address}: {why}", service=service)

    def _scrub(self, text: str) -> str:
        return text.replace(self._token, "[token]") if self._token else text


async def _read_some(response: httpx.Response) -> str:
    text = b""
    async for chunk in response.aiter_raw():
        text += chunk
        if len(text) > _MAX_ERROR_BYTES:
            break
    line = " ".join(text[:_MAX_ERROR_BYTES].decode("utf-8", "replace").split())
    return "".join(c for c in line if c.isprintable())[:200]
