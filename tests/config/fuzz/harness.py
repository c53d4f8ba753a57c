"""Has atheris look for configurations that break what `oracle` says: `nox -s fuzz -- config`, with libFuzzer's options.

An input is either the bytes of a file, or a recipe: which documents of `seeds` stand together, and which of their
fields hold what instead. So most inputs are documents that get past the first look.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["meshlib.config", "meshlib.routing", "tests.config.fuzz"]):
    from tests.config.fuzz.oracle import check_bytes, check_chain, check_documents
    from tests.config.fuzz.seeds import CHAIN, ODD, SEEDS, changed, paths

_SUFFIXES = (".yaml", ".json", ".toml")
_PATHS = [list(paths(seed)) for seed in SEEDS]
_CHAIN_PATHS = list(paths(CHAIN))


def one_input(data: bytes) -> None:
    """The first byte says what kind of input it is."""
    given = atheris.FuzzedDataProvider(data)
    kind = given.ConsumeIntInRange(0, 7)
    if kind < 3:
        check_bytes(given.ConsumeBytes(len(data)), _SUFFIXES[kind])
    elif kind == 3:
        chain: Any = CHAIN
        for _ in range(given.ConsumeIntInRange(1, 4)):
            path = _CHAIN_PATHS[given.ConsumeIntInRange(0, len(_CHAIN_PATHS) - 1)]
            chain = _replaced(chain, path, _value(given))
        check_chain(chain)
    else:
        documents = [_document(given) for _ in range(given.ConsumeIntInRange(1, 4))]
        check_documents(documents)


def _document(given: Any) -> Any:
    index = given.ConsumeIntInRange(0, len(SEEDS) - 1)
    document: Any = SEEDS[index]
    for _ in range(given.ConsumeIntInRange(0, 4)):
        path = _PATHS[index][given.ConsumeIntInRange(0, len(_PATHS[index]) - 1)]
        document = _replaced(document, path, _value(given))
    return document


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    try:
        return changed(document, path, value)
    except (KeyError, IndexError, TypeError):
        return document  # an earlier change took the place away


def _value(given: Any) -> Any:
    kind = given.ConsumeIntInRange(0, 3)
    if kind == 0:
        return given.ConsumeUnicode(given.ConsumeIntInRange(0, 40))
    if kind == 1:
        # What stands elsewhere, in this document or another.
        index = given.ConsumeIntInRange(0, len(SEEDS) - 1)
        value: Any = SEEDS[index]
        for key in _PATHS[index][given.ConsumeIntInRange(0, len(_PATHS[index]) - 1)]:
            value = value[key]
        return value
    return ODD[given.ConsumeIntInRange(0, len(ODD) - 1)]


def write_seeds(directory: str) -> None:
    """A first corpus: of each kind a few."""
    for number in range(64):
        with open(f"{directory}/seed-{number}", "wb") as file:
            # What atheris takes numbers from stands at the end.
            file.write(bytes((number * 37 + step * 11) % 256 for step in range(24)) + bytes([4 + number % 4]))
    for kind, text in enumerate(
        (b"services: {a: &a {timeout: 1s}, b: *a}\n---\n", b'{"services": {}}', b"[services.a]")
    ):
        with open(f"{directory}/text-{kind}", "wb") as file:
            file.write(text + bytes([kind]))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if os.path.isdir(argument):
            write_seeds(argument)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
