"""The discovery chains of all services in use, together: what each of them says of the services that it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from meshlib.config.dialects.consul.chain import ChainError
from meshlib.config.dialects.consul.compiled import is_default, read_chain
from meshlib.config.dialects.consul.native import write_chain
from meshlib.config.dialects.consul.schema import Reading
from meshlib.config.dialects.draft import MAX_WRITTEN, Context, Draft, TooMuch
from meshlib.config.dialects.resources import CONSUL, Resource
from meshlib.config.documents import Document
from meshlib.errors import ConfigError

__all__ = ["LiveChains"]

_NAME: Final = "Consul"


class LiveChains:
    """Chains by service. One thread at a time changes them."""

    def __init__(self) -> None:
        self._chains: Mapping[str, Mapping[str, Any]] = {}
        self._before: Mapping[str, Mapping[str, Any]] = {}
        self._made: tuple[Context, dict[str, dict[str, Any]]] | None = None

    def __contains__(self, service: object) -> bool:
        return service in self._chains

    def take(self, service: str, chain: Mapping[str, Any], context: Context) -> tuple[str, ...]:
        """Take in what Consul answers of a service; a chain that no entry made is forgotten.

        Returns:
            What of it is not honoured, or not to the letter.

        Raises:
            ConfigError: if it cannot be followed; then the one before holds on.
        """
        chains: dict[str, Mapping[str, Any]] = {key: each for key, each in self._chains.items() if key != service}
        notes: tuple[str, ...] = ()
        if not is_default(chain):
            notes = tuple(str(note) for note in _draft(service, {service: chain}, context).notes)
            chains[service] = chain
        self._before, self._chains, self._made = self._chains, chains, None
        return notes

    def undo(self) -> None:
        """Go back to before the last chain was taken in."""
        self._chains, self._made = self._before, None

    def services(self, context: Context) -> dict[str, dict[str, Any]]:
        """What the chains say, in the native form, by service."""
        made = self._made
        if made is None or made[0] != context:
            draft = _draft("", self._chains, context)
            made = self._made = context, {name: service.data for name, service in draft.services.items()}
        return made[1]


def _draft(subject: str, chains: Mapping[str, Mapping[str, Any]], context: Context) -> Draft:
    draft = Draft(context, MAX_WRITTEN * max(1, len(chains)))
    for service, chain in sorted(chains.items()):
        document = Document(_NAME, {}, directory=Path())
        resource = Resource(document, CONSUL, "", "discovery chain", service, "", {}, {}, "", chain)
        try:
            write_chain(draft, read_chain(chain, Reading(draft, resource)), resource.place())
        except (ChainError, TooMuch) as error:
            draft.note(resource.place(), str(error), "wrong")
    wrong = [str(note) for note in draft.notes if note.effect == "wrong"]
    if wrong:
        raise ConfigError(f"the discovery chain of {subject or 'a service'} is not right: {'; '.join(wrong)}")
    return draft
