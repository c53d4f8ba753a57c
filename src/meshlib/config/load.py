"""From files, or maps, to a checked `MeshConfig`; every fault at once."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from meshlib.config.checks import contradictions
from meshlib.config.documents import FORMATS, Document, DocumentError, check_bounds, read_documents
from meshlib.config.file_watch import searched
from meshlib.config.find import nearest_file
from meshlib.config.model import MeshConfig
from meshlib.config.problems import Path, Problem, dotted, problems_of, refuse, written_path
from meshlib.config.search import globbed, plainly, walked
from meshlib.config.strangers import strangers
from meshlib.config.substitute import substitute
from meshlib.config.yaml12 import MAX_VALUES, SourceError
from meshlib.dataclass import dataclass, field

if TYPE_CHECKING:
    from meshlib.config.dialects.draft import Draft
    from meshlib.config.dialects.resources import Place, Resource

__all__ = ["Loading", "load_file", "load_mapping"]

_GONE: Final = object()

MAX_SERVICES: Final = 50_000
"""How many services one configuration may have, those that documents of other meshes come to included."""

MAX_FILES: Final = 1000
"""How many files one configuration may have."""

HCL: Final = (
    "is not honoured: files in HCL are not read; `consul config read -kind ... -name ...` prints an entry as JSON"
)


def load_file(
    path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None, seen: set[str] | None = None
) -> MeshConfig:
    """Read a configuration, with all that it includes.

    Args:
        path: the file; its suffix says whether it is YAML, TOML or JSON. Or a directory: all such files in it, and
            below.
        environ: the variables for ``${NAME}``; the process's own unless given.
        seen: filled with the files and directories that are looked at, whatever comes of it.

    Raises:
        ConfigError: with every fault in any of the files.
    """
    name = os.fspath(path)
    loading = Loading(os.environ if environ is None else environ)
    if seen is not None:
        loading.seen = seen
    loading.look_at(name)
    try:
        if os.path.isdir(name):
            within = Document(os.path.join(name, ""), {"include": ["."]}, directory=FilePath(name))
            loading.add(within, (os.path.realpath(name),), ())
        else:
            for document in read_documents(FilePath(name), name, piped=True):
                loading.add(document, (os.path.realpath(name),), ())
    except (DocumentError, ValueError) as error:
        # A ValueError is a path with a null character in it.
        problem = error.problem if isinstance(error, DocumentError) else Problem(repr(name), (), str(error))
        raise refuse([problem], "the configuration cannot be read") from error.__cause__
    return loading.finish(f"the configuration in {name} is wrong")


def load_mapping(
    data: Mapping[str, Any],
    *,
    origin: str = "the given map",
    directory: str | os.PathLike[str] = ".",
    environ: Mapping[str, str] | None = None,
    variables: bool = True,
    seen: set[str] | None = None,
) -> MeshConfig:
    """Check a configuration that is a map already: `Mesh.from_dict`, or the arguments of `Mesh`.

    Args:
        data: the same as a file's content; any part of it may be an object of `meshlib.config.model`.
        origin: how errors name it.
        directory: what ``include`` is relative to.
        environ: the variables for ``${NAME}``; the process's own unless given.
        variables: whether texts may have variables in them. Texts written in code are best taken as they are.
        seen: see `load_file`.

    Raises:
        ConfigError: with every fault.
    """
    loading = Loading((os.environ if environ is None else environ) if variables else None)
    if seen is not None:
        loading.seen = seen
    try:
        if not isinstance(data, Mapping):
            raise SourceError(f"a map is expected, not {type(data).__name__}")
        check_bounds(data)
    except SourceError as error:
        raise refuse([Problem(origin, (), error.text)], "the configuration is wrong") from None
    loading.add(Document(origin, dict(data), directory=FilePath(directory)), (), ())
    return loading.finish("the configuration is wrong")


@dataclass(slots=True)
class Loading:
    """One configuration on its way: the documents so far, what they hold together, and what is wrong with them.

    `data` and `written` are the same tree, with variables filled in and as it was written; `owners` says from which
    document each top-level field and each service comes.
    """

    environ: Mapping[str, str] | None
    data: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    owners: dict[Path, Document] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    faulty: set[Path] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)
    origins: dict[Path, Place] = field(default_factory=dict)
    draft: Draft | None = None
    unread: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    values: int = 0

    def look_at(self, *paths: str | os.PathLike[str]) -> None:
        """Files and directories are looked at."""
        self.seen.update(map(os.path.abspath, paths))

    def add(self, document: Document, chain: tuple[str, ...], names: tuple[str, ...]) -> None:
        """Take in a document, and what it includes."""
        if self.too_large(document):
            return
        self.documents.append(document)
        if chain:
            self.files.add(chain[-1])
            if document.name not in self.names:
                self.names.append(document.name)
        if _may_be_foreign(document):
            from meshlib.config.dialects.resources import resources_in

            found = resources_in(document)
            if found:
                _, faults = substitute(document.data, None)
                self._refuse(document, faults)
                self.resources += [] if faults else found
                return
        for there, missing in (("apiVersion", "kind"), ("kind", "apiVersion")):
            if there in document.data and missing not in document.data:
                helm = "; a chart of Helm is read as `helm template` prints it" if missing == "kind" else ""
                self._note(document, (), f"has {there!r} and no {missing!r}: no document of another mesh{helm}")
                return
        if chain and (others := strangers(document.data)):
            self._note(document, (), f"{others}: is this file meant?")
            return
        filled, faults = substitute(document.data, self.environ)
        self._refuse(document, faults)
        self.faulty.update(faults)
        self._merge(document, filled)
        include = filled.get("include")
        if isinstance(include, (list, tuple)):
            for index, pattern in enumerate(include):
                if isinstance(pattern, str) and pattern and ("include", index) not in faults:
                    self._include(document, index, pattern, chain, (*names, document.name))
        elif include is not None and len(self.documents) > 1:
            # The model sees the first document's `include` alone.
            self._note(document, ("include",), "a list is expected")

    def too_large(self, document: Document) -> bool:
        """Whether this document is too much, with all those before; that is a problem, and said once."""
        before, self.values = self.values, self.values + document.values
        if before <= MAX_VALUES < self.values:
            text = f"with all files before it, holds more than {MAX_VALUES} values"
            self.problems.append(Problem(document.name, (), text))
        return self.values > MAX_VALUES

    def _refuse(self, document: Document, faults: Mapping[Path, str]) -> None:
        for path, text in faults.items():
            self._note(document, path, text)

    def _merge(self, document: Document, filled: dict[str, Any]) -> None:
        first = len(self.documents) == 1
        filled.pop("$schema", None)  # for editors, as files in JSON name it
        for key, value in filled.items():
            as_written = document.data.get(key)
            if key == "include" and not first:
                continue
            if key == "services" and isinstance(value, Mapping) and isinstance(self.data.get(key, {}), dict):
                self.owners.setdefault(("services",), document)
                self.data.setdefault("services", {})
                self.written.setdefault("services", {})
                for name, service in value.items():
                    if self._own(("services", name), document):
                        self.data["services"][name] = service
                        self.written["services"][name] = as_written[name] if isinstance(as_written, Mapping) else None
            elif key == "services" and value is None:
                continue
            elif self._own((key,), document):
                self.data[key] = value
                self.written[key] = as_written

    def _own(self, path: Path, document: Document) -> bool:
        owner = self.owners.setdefault(path, document)
        if owner is document:
            return True
        line = owner.line(path)
        other = owner.name if line is None else f"{owner.name}:{line}"
        what = "the service is" if len(path) == 2 else "is"
        self._note(document, path, f"{what} declared in {other} as well; one file must have it")
        return False

    def _note(self, document: Document, path: Path, text: str) -> None:
        self.problems.append(Problem(document.name, path, text, document.line(path)))

    def _include(
        self, document: Document, index: int, pattern: str, chain: tuple[str, ...], names: tuple[str, ...]
    ) -> None:
        place: Path = ("include", index)
        for found in self._matching(document, place, pattern):
            real = os.path.realpath(document.directory / found)
            # From the same directory as the including file's own name, so that an error names both alike.
            name = plainly(os.path.join(os.path.dirname(document.name), found) if chain else found)
            if real in chain:
                way = " -> ".join([*names[chain.index(real) :], name])
                self._note(document, place, f"a file includes itself: {way}")
            elif real not in self.files:
                if self.values > MAX_VALUES:
                    return
                if len(self.files) >= MAX_FILES:
                    self._note(document, place, f"more than {MAX_FILES} files are included")
                    return
                self.files.add(real)
                self.look_at(document.directory / found)
                try:
                    included = read_documents(document.directory / found, name)
                except DocumentError as error:
                    self.problems.append(error.problem)
                else:
                    for each in included:
                        self.add(each, (*chain, real), names)

    def _matching(self, document: Document, place: Path, pattern: str) -> list[str]:
        base = document.directory
        try:
            if glob.has_magic(pattern):
                self.look_at(*searched(os.fspath(base), pattern))
                # One more than allowed, so that the bound is noticed; sorted, so that the order is everywhere the same.
                files = dict.fromkeys(match for match in globbed(os.fspath(base), pattern) if (base / match).is_file())
                return sorted(islice(files, MAX_FILES + 1))
            self.look_at(base / pattern)
            if (base / pattern).is_dir():
                return self._inside(document, place, pattern)
            if (base / pattern).exists():
                return [pattern]
        except (OSError, ValueError) as error:
            self._note(document, place, f"cannot be looked for: {error}")
            return []
        hint = nearest_file(base / pattern)
        self._note(document, place, f"there is no file {pattern!r}{hint}")
        return []

    def _inside(self, document: Document, place: Path, directory: str) -> list[str]:
        """The files in a directory and below, in order; those whose names begin with a dot are nobody's business."""
        found: list[str] = []
        for root, named in walked(os.fspath(document.directory / directory)):
            self.look_at(root)
            below = os.path.relpath(root, document.directory)
            known = [name for name in named if os.path.splitext(name)[1].lower() in FORMATS]
            found += [os.path.normpath(os.path.join(below, name)) for name in known]
            here = os.path.join(os.path.dirname(document.name), below)
            self.unread += [os.path.normpath(os.path.join(here, name)) for name in named if name.endswith(".hcl")]
            if len(found) > MAX_FILES:
                break
        if not found:
            at, where = ((), "it") if document.name.endswith(os.sep) else (place, repr(directory))
            self._note(document, at, f"there is no file in {where}: {', '.join(FORMATS)} are looked for")
        return found

    def _translate(self) -> None:
        """Lay what the documents of other meshes say beside what is written."""
        from meshlib.config.dialects.merge import merged, translated
        from meshlib.config.dialects.resources import Place

        self.draft, problems = translated(self.resources, self.data)
        self.problems += problems
        for name in self.unread:
            self.draft.note(Place(name, "HCL"), HCL, "ignored")
            if self.draft.context.settings.strict:
                self.problems.append(Problem(name, (), f"HCL: {HCL}"))
        self.data, self.origins, problems = merged(self.draft, self.data, self.origin_of)
        self.written = merged(self.draft, self.written, self.origin_of)[0]
        self.problems += problems

    def origin_of(self, path: Path) -> str:
        """The file and the line of a native field."""
        owner = self._owner(path)
        line = owner.line(path)
        return owner.name if line is None else f"{owner.name}:{line}"

    def finish(self, subject: str) -> MeshConfig:
        """Validate what was gathered.

        Raises:
            ConfigError: with every fault.
        """
        config = self.examine()
        if self.problems or config is None:
            raise refuse(self.problems, subject)
        return config

    def examine(self) -> MeshConfig | None:
        """Validate what was gathered; faults are in `problems`. None if nothing is left of it without them."""
        if self.resources or self.unread:
            self._translate()
        config = self._validate()
        if config is not None:
            config._sources = tuple(self.names)
            if self.draft is not None:
                config._notes = tuple(self.draft.notes)
                config._security_documents = tuple(self.draft.security)
        return config

    def _validate(self) -> MeshConfig | None:
        """The configuration; where a fault was noted, what is left of it without the fields in error, if anything."""
        touched: dict[str, set[str]] = defaultdict(set)
        for path in self.faulty:
            touched[_scope(path)].update(part for part in path if isinstance(part, str))
        data: Any = self.data
        config: MeshConfig | None = None
        services = data.get("services")
        if isinstance(services, Mapping) and len(services) > MAX_SERVICES:
            text = f"{len(services)} services are more than {MAX_SERVICES}, which is the limit"
            self.problems.append(self.problem(("services",), text))
            return None
        for attempt in range(8):
            try:
                config = MeshConfig.model_validate(data)
                break
            except ValidationError as error:
                found = list(problems_of(MeshConfig, data, self.written, error))
            for path, text, names in found:
                touched[_scope(path)] |= names | _lost_with(path)
                # What shows only once other fields are left out may be no fault at all.
                if attempt == 0 and not any(path[: len(faulty)] == faulty for faulty in self.faulty):
                    self.problems.append(self.problem(path, text))
            data = _without(data, [path for path, _, _ in found])
        if config is not None:
            for fault in contradictions(config):
                unsure = set().union(*(touched[scope] for scope in ("", _scope(fault.path), *fault.services)))
                if not fault.needs & unsure:
                    also = "" if fault.other is None else self._also(fault.path, fault.other)
                    self.problems.append(self.problem(fault.path, fault.text + also))
        return config

    def problem(self, path: Path, text: str) -> Problem:
        """What is to be said of a native field, at its place."""
        path = written_path(path, self.data)
        place = self.place_of(path)
        if place is not None:
            # What the translation made of it comes after: the field by which a document says it may be another.
            return Problem(place.file, (), f"{place.what}: as {dotted(path)}: {text}", place.line)
        owner = self._owner(path)
        return Problem(owner.name, path, text, owner.line(path))

    def place_of(self, path: Path) -> Place | None:
        """Where a document of another mesh says what stands at `path`; None if none does."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return None

    def _owner(self, path: Path) -> Document:
        return self.owners.get(path[:2]) or self.owners.get(path[:1]) or self.documents[0]

    def _also(self, path: Path, other: Path) -> str:
        owner = self._owner(other)
        if owner is self._owner(path):
            return f" ({dotted(other)})"
        line = owner.line(other)
        return f" ({owner.name if line is None else f'{owner.name}:{line}'}: {dotted(other)})"


def _may_be_foreign(document: Document) -> bool:
    return "kind" in document.data or "Kind" in document.data or document.for_kustomize


def _scope(path: Path) -> str:
    """How far a fault reaches: within its service; one in `defaults` everywhere."""
    if path[:1] == ("services",):
        return str(path[1]) if len(path) > 1 else ""
    return "" if path[:1] == ("defaults",) else f"/{path[0] if path else ''}"


def _lost_with(path: Path) -> frozenset[str]:
    """What is missing when a whole service, or all of them, had to be left out."""
    whole = path[:1] == ("services",) and len(path) <= 2
    return frozenset({"subsets", "hosts"}) if whole else frozenset()


def _without(data: Any, paths: Iterable[Path]) -> Any:
    """`data` without the fields at `paths`. Of a list nothing is taken out, lest its places change: it goes whole.

    What lacks a field that is required goes as a whole, too.
    """
    cuts: dict[Any, Any] = {}
    for path in [path if _is_there(data, path) else path[:-1] for path in paths]:
        here = cuts
        for part in path[:-1] if path and isinstance(path[-1], int) else path:
            here = here.setdefault(part, {})
        here[_GONE] = {}
    return {} if _GONE in cuts else _cut(data, cuts)


def _is_there(data: Any, path: Path) -> bool:
    for key in path:
        if not (key in data if isinstance(data, Mapping) else isinstance(data, list) and key in range(len(data))):
            return False
        data = data[key]
    return True


def _cut(data: Any, cuts: Mapping[Any, Any]) -> Any:
    if isinstance(data, Mapping):
        return {
            key: _cut(each, cuts[key]) if key in cuts else each
            for key, each in data.items()
            if key not in cuts or _GONE not in cuts[key]
        }
    if isinstance(data, list):
        return [_cut(each, cuts[index]) if index in cuts else each for index, each in enumerate(data)]
    return data
