"""Several files and directories as one configuration, with all that there is to say of it: for the command line.

What `meshlib.config.load` refuses with the first error, this looks at to the end: faults, what is not honoured, where
each service and route is written, and all of it in the native form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from meshlib.config.documents import MAX_BYTES, Document, DocumentError, parse, read_documents
from meshlib.config.load import Loading
from meshlib.config.model import MeshConfig
from meshlib.config.problems import Path, Problem, refuse
from meshlib.config.undeclared import undeclared
from meshlib.dataclass import dataclass, field
from meshlib.errors import ConfigError

if TYPE_CHECKING:
    from meshlib.config.dialects.draft import Draft, Note

__all__ = ["Gathered", "gather"]

_DOLLARS = re.compile(r"\$+(?=\{)|\$\$+")
"""Of a text what `meshlib.config.substitute` would take for more than dollar signs."""

_MOST_DOCUMENTS: Final = 5
"""Of those that speak of one service so many are named."""


@dataclass(slots=True)
class Gathered:
    """What files and directories hold together.

    Attributes:
        config: the configuration; None if nothing is left of it without its faults.
        problems: everything that is wrong, in the order of files and lines.
        notes: what documents of other meshes say that is not done, or not to the letter.
        hints: what may be a slip, and may be right.
        files: that were read.
        native: all of it in the native form, as `config` was made of, with variables as they are written.
    """

    config: MeshConfig | None
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]
    hints: tuple[Problem, ...]
    files: tuple[str, ...]
    native: dict[str, Any]
    _loading: Loading = field(repr=False)

    def origin(self, *path: str | int) -> str:
        """Where a part of `native` is written: file and line, and the document if it is another mesh's."""
        if path[:1] == ("services",) and len(path) == 2:
            return self._service(path)
        place = self._loading.place_of(path)
        return self._loading.origin_of(path) if place is None else f"{place.where}: {place.subject}"

    def _service(self, path: Path) -> str:
        """Of a service all documents that say something of it, each once."""
        places = sorted(
            (place for at, place in self._loading.origins.items() if at[:2] == path),
            key=lambda place: (place.file, place.line or 0),
        )
        told = [self._loading.origin_of(path)] if path in self._loading.owners else []
        seen: dict[tuple[str, str], str] = {}
        for place in places:
            seen.setdefault((place.file, place.subject), f"{place.where}: {place.subject}")
        told += list(seen.values())
        more = f", and {len(told) - _MOST_DOCUMENTS} more" if len(told) > _MOST_DOCUMENTS else ""
        return ", ".join(told[:_MOST_DOCUMENTS]) + more

    def error(self) -> ConfigError:
        """The error that says what is wrong."""
        return refuse(self.problems, "the configuration is wrong")


def gather(paths: Iterable[str | os.PathLike[str]], *, environ: Mapping[str, str] | None = None) -> Gathered:
    """Read files and directories as one configuration.

    Args:
        paths: in any dialect; of a directory all files in it, and below.
        environ: the variables for ``${NAME}``; the process's own unless given.
    """
    loading = Loading(os.environ if environ is None else environ)
    for path in paths:
        name = os.fspath(path)
        try:
            found = _documents(name)
        except (DocumentError, ValueError, OSError) as error:
            problem = error.problem if isinstance(error, DocumentError) else Problem(repr(name), (), str(error))
            loading.problems.append(problem)
            continue
        for document in found:
            loading.add(document, (os.path.realpath(name),), ())
    native = dict(loading.written)
    config = loading.examine() if loading.documents else None
    draft = loading.draft
    if draft is not None:
        from meshlib.config.dialects.merge import merged

        native = merged(_escaped(draft), native, loading.origin_of)[0]
        _cut_short(native, loading.data, draft)
    native.pop("include", None)
    problems = sorted(dict.fromkeys(loading.problems), key=lambda each: (each.file, each.line or 0))
    notes = (
        () if draft is None else tuple(sorted(draft.notes, key=lambda each: (each.place.file, each.place.line or 0)))
    )
    return Gathered(
        config,
        tuple(problems),
        notes,
        () if config is None else tuple(loading.problem(path, text) for path, text in undeclared(config)),
        tuple(name for name in loading.names if not os.path.isdir(name)),
        native,
        loading,
    )


def _documents(name: str) -> list[Document]:
    if os.path.isdir(name):
        return [Document(os.path.join(name, ""), {"include": ["."]}, directory=FilePath(name))]
    path = FilePath(name)
    # As a shell makes it of <(git show main:mesh.yaml), or what comes by the standard input.
    if not path.suffix and (path.is_fifo() or name == "/dev/stdin"):
        with path.open("rb") as pipe:
            return parse(pipe.read(MAX_BYTES + 1), ".yaml", name)
    return read_documents(path, name, piped=True)


def _escaped(draft: Draft) -> Draft:
    """The same, for a file: a dollar sign of a document is one, and begins no variable."""
    from meshlib.config.dialects.draft import Draft as Copy
    from meshlib.config.dialects.draft import ServiceDraft

    copy = Copy(draft.context)
    copy.top, copy.origins = _as_text(draft.top), draft.origins
    for name, service in draft.services.items():
        copied = copy.services[name] = ServiceDraft(copy, name)
        copied.data, copied.origins, copied.usual = _as_text(service.data), service.origins, service.usual
    return copy


def _cut_short(native: dict[str, Any], loaded: Mapping[str, Any], draft: Draft) -> None:
    """Where a timeout written with a variable cuts short what documents say, it does so here as well."""
    defaults = native.get("defaults")
    for name in draft.services:
        own, now = native["services"][name], loaded["services"][name]
        if not isinstance(own, Mapping) or not isinstance(now, Mapping):
            continue
        timeout = own.get("timeout", defaults.get("timeout") if isinstance(defaults, Mapping) else None)
        cut = {each: timeout for each in ("connect_timeout", "per_try_timeout") if _is_cut(own, now, each)}
        if isinstance(routes := own.get("routes"), list):
            cut["routes"] = [
                {**route, "per_try_timeout": timeout} if _is_cut(route, after, "per_try_timeout") else route
                for route, after in zip(routes, now["routes"], strict=True)
            ]
        native["services"][name] = {**own, **cut}


def _is_cut(written: Any, loaded: Any, name: str) -> bool:
    """Whether a time that a document gives became the timeout; one that the user gives stays as it is."""
    if not isinstance(written, Mapping) or not isinstance(loaded, Mapping):
        return False
    before, after = written.get(name), loaded.get(name)
    return before != after and "${" not in str(before)


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return _DOLLARS.sub(lambda found: found[0] * 2, value)
    if isinstance(value, Mapping):
        return {key: _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, (list, tuple)) else value
