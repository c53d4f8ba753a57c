"""What the pages of docs/traffic show loads, and what they name is there: fields and defaults, metrics, events."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from meshlib.config import model
from meshlib.config.compile import compile_config
from meshlib.config.fields import Part
from meshlib.config.load import load_mapping
from meshlib.config.yaml12 import read_yaml
from meshlib.durations import parse_duration
from meshlib.policy.admission_settings import KeySource
from meshlib.policy.record import AttemptRecord, Record
from meshlib.telemetry import events, gauges

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = DOCS.parent / "src" / "meshlib"
PAGES = {path.stem: path.read_text() for path in sorted((DOCS / "traffic").glob("*.md"))}
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(DOCS)}-{index}")
    for path in sorted((*DOCS.glob("*.md"), *(DOCS / "traffic").glob("*.md"), *(DOCS / "routing").glob("*.md")))
    for index, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL))
]


def _whole(block: str) -> dict[str, Any]:
    """The configuration that `block` is a part of: of the file, of `services`, or of one service."""
    top, service, services = {}, {}, {}
    for key, value in read_yaml(block)[0][0].items():
        if key in model.MeshConfig.model_fields or key == "register":
            top[key] = value
        elif key in model.Service.model_fields:
            service[key] = value
        else:
            services[key] = value
    services |= top.get("services") or {}
    return {**top, "services": {**services, **({"example": service} if service else {})}}


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_loads(block: str) -> None:
    config = {key: value for key, value in _whole(block).items() if key != "include"}
    environ = {"REDIS_URL": "redis://127.0.0.1/0", "CONSUL_HTTP_TOKEN": "", "POD_INDEX": "2", "REPLICAS": "9"}
    environ["OVERRIDE_KEY"] = "a-key-that-nobody-guesses"
    compile_config(load_mapping({"service": "checkout", **config}, environ=environ))


OF: Mapping[str, tuple[Part | type[Part], ...]] = {
    "bulkhead": (model.Bulkhead,),
    "circuit-breaker": (model.CircuitBreaker,),
    "faults": (model.Fault,),
    "fleet": (model.Fleet, model.MeshConfig),
    "hash-policy": (model.HashOn, model.Service),
    "health-checks": (model.HealthCheck,),
    "outlier-detection": (model.OutlierDetection, model.SuccessRate, model.FailurePercentage),
    "priorities": (model.Service,),
    "rate-limit": (model.RateLimit,),
    "retries": (model.Retry,),
    "retry-budgets": (model.RetryBudget,),
}
"""What has the fields of a page's tables, where their heading does not say it."""

NAMED: Mapping[str, type[Part]] = {
    "accrual": model.Accrual,
    "aperture": model.Aperture,
    "hedge": model.Hedge,
    "least_request": model.LeastRequest,
    "limits": model.Limits,
    "load_balancing": model.LoadBalancing,
    "retry_budget": model.RetryBudget,
    "prequal": model.Prequal,
    "server_weights": model.ServerWeights,
    "session_affinity": model.SessionAffinity,
    "shadow": model.Shadow,
    "slow_start": model.SlowStart,
    "subset": model.MetadataSubsets,
    "subsetting": model.Subsetting,
    "zone_aware": model.ZoneAware,
}


def _owners(page: str, heading: str, section: str) -> tuple[Part | type[Part], ...]:
    if of := re.search(r"field of `(\w+)`", heading):
        return (NAMED[of[1]],)
    algorithm = section.split(" ")[0]
    if page == "adaptive-concurrency":
        return (model.Adaptive(algorithm=algorithm),)  # type: ignore[arg-type]
    if page == "throttling":
        return (model.Throttle(algorithm=algorithm),)  # type: ignore[arg-type]
    return OF[page]


def _tables() -> Iterator[tuple[str, tuple[Part | type[Part], ...], str, str]]:
    """Of each row about fields: the page, what has the fields, the cell that names them, the one with the defaults."""
    for page, text in PAGES.items():
        for table in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE):
            heading, _, *rows = [re.split(r"\s*\|\s*", line[1:].strip()) for line in table[0].splitlines()]
            heading, rows = [each.strip() for each in heading], [[each.strip() for each in row] for row in rows]
            if not heading[0].startswith("field"):
                continue
            section = re.findall(r"^##+ (.*)", text[: table.start()], re.MULTILINE)
            for row in rows:
                name = row[0]
                if "default" in heading:
                    owners = _owners(page, heading[0], section[-1] if section else "")
                    yield page, owners, name, row[heading.index("default")]
                elif page == "adaptive-concurrency":
                    for algorithm, cell in zip(heading[1:], row[1:], strict=False):
                        if algorithm and cell:
                            yield page, (model.Adaptive(algorithm=algorithm),), name, cell  # type: ignore[arg-type]


def _names(cell: str) -> list[str]:
    """The fields that `cell` names, dotted."""
    before, colon, after = cell.partition(": ")
    if cell.count("`") == 2 and colon:  # `backoff: {base, max}`
        return [f"{before.strip('`')}.{each}" for each in re.findall(r"\w+", after)]
    if colon:  # `http`: `path`, `method`
        prefixes = re.findall(r"`(\w+)`", before)
        return [".".join((*prefixes, each)) for each in re.findall(r"`([^`]+)`", after)]
    found = [each.replace("[]", "") for each in re.findall(r"`([^`]+)`", cell.split("` of ")[0] + "`")]
    prefix, dot, _ = found[0].rpartition(".")
    return [found[0], *(each if "." in each else f"{prefix}{dot}{each}" for each in found[1:])]


def _parts_in(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in _parts_in(each)]


_NOWHERE = object()


def _default(owner: Part | type[Part], name: str) -> Any:
    """What the field is where nothing is written: by the settings, else by the model; None if it must be given."""
    cls = owner if isinstance(owner, type) else type(owner)
    fields = {field.alias or key: (key, field) for key, field in cls.model_fields.items()}
    prefix, settings = "", owner.compiles_to
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in fields:
            return _NOWHERE
        parts = _parts_in(fields[parent][1].annotation)
        if parts[0].compiles_to is None and settings is not None:
            prefix += f"{parent}_"
        else:
            prefix, settings = "", parts[0].compiles_to
        fields = {field.alias or key: (key, field) for key, field in parts[0].model_fields.items()}
    if last not in fields:
        return _NOWHERE
    if fields[last][1].is_required():
        return None
    compiled = {} if settings is None else settings.__dataclass_fields__  # type: ignore[attr-defined]
    for candidate in (f"{prefix}{last}", f"{prefix}{last}_s"):
        if candidate in compiled and compiled[candidate].default is not dataclasses.MISSING:
            return compiled[candidate].default
    return fields[last][1].get_default(call_default_factory=True)


def _one(value: Any) -> str:
    # A range of statuses is its first and its last.
    return "-".join(map(str, dict.fromkeys(value))) if isinstance(value, tuple) else str(value)


def _said(default: Any, written: str) -> bool:
    """Whether `written` says that something is `default`. What is nothing may be told in words, but not in numbers."""
    text = re.sub(r"(?<=\d) (?=\d)", "", written.replace("`", ""))
    text = re.sub(r"(?<=\d) (ms|s|min|h)\b", lambda unit: unit[1].replace("min", "m"), text)
    words = re.split(r"[:;(]", text)[0].strip()
    if isinstance(default, (Part, Mapping)) or default in (None, (), "", b"", frozenset()):
        return not re.match(r"\d", words)
    if isinstance(default, bool):
        return words == str(default).lower()
    if isinstance(default, (int, float)):
        try:
            return parse_duration(words) == default
        except ValueError:
            return False
    if isinstance(default, (tuple, frozenset)):
        return set(re.findall(r"[\w-]+", words)) == {_one(each) for each in default}
    return words == (default.kind if isinstance(default, KeySource) else default)


EXPLAINED = {"limits.max_pending"}
"""Fields that are nothing by default, of which the page says in a number what that comes to."""


def _claims() -> Iterator[tuple[str, tuple[Part | type[Part], ...], str, str]]:
    """Of each field in a table: the page, what has it, its name, and what its default is said to be."""
    for page, owners, cell, defaults in _tables():
        names = _names(cell)
        pieces = [defaults] if len(names) == 1 else re.split(r"[,;] ", defaults)
        for index, name in enumerate(names):
            yield page, owners, name, pieces[max(0, len(pieces) - len(names)) :][min(index, len(pieces) - 1)]


CLAIMS = list(_claims())


@pytest.mark.parametrize("page", sorted({page for page, *_ in CLAIMS}))
def test_every_field_in_a_table_is_there_with_that_default(page: str) -> None:
    wrong = []
    for _, owners, name, written in (claim for claim in CLAIMS if claim[0] == page):
        full = name
        if name.startswith("..."):
            full = next((each for each in model.OutlierDetection.model_fields if each.endswith(name[3:])), name)
        defaults = [default for owner in owners if (default := _default(owner, full)) is not _NOWHERE]
        if not defaults:
            wrong.append(f"{name}: there is no such field")
        elif f"{page}.{name}" not in EXPLAINED and written and not all(_said(default, written) for default in defaults):
            wrong.append(f"{name}: {written!r} is said to be the default, and {defaults} is")
    assert wrong == []


def test_tables_are_read() -> None:
    assert len(CLAIMS) > 180
    assert not _said(20, "21")
    assert not _said(0.5, "500 s")
    assert not _said(None, "3")
    assert _said(300.0, "5 min")


METRICS = {gauge.name for gauge in gauges.GAUGES}
"""Instruments; their attributes and those of spans are literals of the packages that set them."""
ATTRIBUTES = {
    each
    for package in ("telemetry", "adapters", "policy")
    for path in (SOURCES / package).glob("*.py")
    for each in re.findall(r'"(meshlib\.[a-z_.]+)"', path.read_text())
}


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_and_attribute_that_a_page_names_is_there(page: str) -> None:
    named = set(re.findall(r"`(meshlib\.[a-z_.]+)`", PAGES[page]))
    modules = {each for each in named if (SOURCES / Path(*each.split(".")[1:])).with_suffix(".py").exists()}
    modules |= {each for each in named if (SOURCES / Path(*each.split(".")[1:])).is_dir()}
    assert named - modules <= METRICS | ATTRIBUTES


@pytest.mark.parametrize("page", PAGES)
def test_every_example_and_test_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`((?:examples|tests)/[\w/]+\.py)`", PAGES[page])
    assert [each for each in named if not (DOCS.parent / each).exists()] == []


def test_every_example_of_traffic_is_on_a_page_and_in_the_index() -> None:
    everything = "".join(PAGES.values())
    index = (DOCS.parent / "examples" / "README.md").read_text()
    for path in (DOCS.parent / "examples" / "traffic").glob("*.py"):
        assert f"`examples/traffic/{path.name}`" in everything, path.name
        assert f"](traffic/{path.name})" in index, path.name


def test_every_metric_is_on_a_page() -> None:
    everything = "".join(PAGES.values()) + (DOCS / "telemetry.md").read_text()
    assert {each for each in METRICS if f"`{each}`" not in everything} == set()


GATES = {
    name
    for path in (*(SOURCES / "policy").glob("*.py"), *(SOURCES / "fleet").glob("*.py"))
    for name in re.findall(r'(?:name\b[^"\n]*= |refused_by = )"([a-z-]+)"', path.read_text())
}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_of_the_record_and_of_events_is_there(page: str) -> None:
    text = PAGES[page]
    fields = {field.name for field in dataclasses.fields(Record)} | {each for each in vars(Record) if each[0] != "_"}
    assert set(re.findall(r"`Record\.(\w+)", text)) <= fields
    assert set(re.findall(r"`attempts\[\]\.(\w+)`", text)) <= {each.name for each in dataclasses.fields(AttemptRecord)}
    for sentence in re.findall(r"`refused_by`[^`]*? is ((?:`[a-z-]+`(?: or )?)+)", text):
        assert set(re.findall(r"`([a-z-]+)`", sentence)) <= GATES
    for sentence in re.findall(r"[Ee]vents?\W{1,5}((?:`[A-Z]\w+`(?:, | and )?)+)", text):
        assert set(re.findall(r"`(\w+)`", sentence)) <= set(events.__all__)
