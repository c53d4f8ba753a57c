"""``meshlib convert``: what it prints is loaded as what it was made of."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.cli.native_text import NotInToml, _inline, _toml_key, native_text
from meshlib.config.compile import compile_config
from meshlib.config.difference import differences
from meshlib.config.gather import Gathered, gather
from meshlib.config.settings import MeshSettings
from meshlib.config.yaml12 import read_yaml
from meshlib.dataclass import replace
from tests.config.test_traffic_docs import _whole

ROOT = Path(__file__).parents[2]
ENVIRON = {"REDIS_URL": "redis://127.0.0.1/0", "CONSUL_HTTP_TOKEN": "", "POD_INDEX": "2", "REPLICAS": "9"}
ENVIRON["OVERRIDE_KEY"] = "k" * 32
Run = Callable[..., Result]

pytestmark = pytest.mark.slow  # with its many cases

BOOKINFO = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers: {end-user: {exact: jason}}
      uri: {regex: "/reviews/[0-9]+$"}
    route:
    - destination: {host: reviews, subset: v2}
    fault: {delay: {percentage: {value: 10}, fixedDelay: 7s}}
  - route:
    - destination: {host: reviews, subset: v1}
      weight: 90
    - destination: {host: ratings}
      weight: 10
      headers: {request: {set: {x-price: "$${5}"}}}
    corsPolicy: {allowOrigins: [{exact: "https://example.com"}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {connectionPool: {http: {maxRetries: 5}}, outlierDetection: {consecutive5xxErrors: 7}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""

CONSUL = [
    {"Kind": "service-defaults", "Name": "web", "Protocol": "http"},
    {
        "Kind": "service-router",
        "Name": "web",
        "Routes": [{"Match": {"HTTP": {"PathPrefix": "/admin"}}, "Destination": {"Service": "admin"}}],
    },
    {
        "Kind": "service-resolver",
        "Name": "web",
        "DefaultSubset": "v1",
        "Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}},
    },
]

NATIVE = """
namespace: shop
services:
  reviews:
    timeout: ${REVIEWS_TIMEOUT:-3s}
    hosts: ["reviews.example:81"]
  "1": {hosts: ["on.example"], endpoints: ["10.0.0.1:80"]}
  "null":
  stock:
    routes:
      - match:
          - path: {regex: "/a$$b${NOTHING:-}$"}
            headers: {x: {exact: "0o17"}, y: {exact: "1e3"}, z: {exact: "null"}}
        headers: {request: {set: {a: "yes", b: "tab\\there", c: "ü", d: "", e: " x ", f: "#", g: "a: b", h: "[x"}}}
        timeout: null
      - match: [{percent: 12.5, method: [GET, POST]}]
        direct_response: {status: 503, body: "one\\ntwo\\n"}
"""


def _blocks(directory: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / directory).glob("*.md")):
        for index, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)):
            yield f"{path.relative_to(ROOT)}-{index}", block


def _samples() -> dict[str, str]:
    samples = {"bookinfo": BOOKINFO, "consul": json.dumps(CONSUL), "native": NATIVE, "mixed": f"{NATIVE}---{BOOKINFO}"}
    for name, block in (*_blocks("docs/dialects"), *_blocks("docs/routing"), *_blocks("docs/traffic")):
        if re.search(r"^include:", block, re.MULTILINE):  # files that a reader of the page has
            continue
        foreign = re.search(r"^(?:apiVersion|[Kk]ind):", block, re.MULTILINE)
        samples[name] = block if foreign else json.dumps(_whole(block))
    manifests = sorted((ROOT / "tests" / "data" / "gateway_api" / "manifests").glob("*.yaml"))
    given = [each for path in manifests for each in re.split(r"^---\n", path.read_text(), flags=re.MULTILINE)]
    # Some stand in several files: of the same kind, name and namespace one is kept.
    once = {tuple(re.findall(r"^(?:kind|  name|  namespace): .*", each, re.MULTILINE)[:3]): each for each in given}
    samples["gateway-api"] = "\n---\n".join(once.values())
    for path in sorted((ROOT / "tests").rglob("samples/*.yaml")):
        samples[f"{path.parent.parent.name}-{path.stem}"] = path.read_text()
    return samples


SAMPLES = _samples()


def _gathered(text: str, directory: Path, name: str = "sample.yaml") -> Gathered:
    file = directory / name
    if text.startswith("["):
        text = "\n---\n".join(json.dumps(each) for each in json.loads(text))
    file.write_text(text)
    return gather([file], environ=ENVIRON)


def _settings(gathered: Gathered) -> MeshSettings:
    assert gathered.config is not None and not gathered.problems, gathered.error()
    return replace(compile_config(gathered.config), sources=(), notes=(), security_documents=())


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_converted_means_the_same(name: str, tmp_path: Path) -> None:
    gathered = _gathered(SAMPLES[name], tmp_path)
    before = _settings(gathered)
    for form in ("yaml",) if name.startswith("docs/") else ("yaml", "json", "toml"):
        try:
            text = native_text(gathered, form)
        except NotInToml:
            assert form == "toml"
            continue
        after = _settings(_gathered(text, tmp_path, f"native.{form}"))
        assert [str(each) for each in differences(before, after)] == []
        assert before == after


def test_the_samples_are_of_all_kinds() -> None:
    assert {"bookinfo", "consul", "native", "mixed"} <= SAMPLES.keys()
    assert len(SAMPLES) > 60


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    TEXTS | st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=20
)


@given(st.dictionaries(TEXTS.filter(lambda key: key not in ("services", "route_sets")), VALUES, max_size=4))
@settings(max_examples=50, deadline=None)
def test_whatever_is_written_reads_back(value: dict[str, Any]) -> None:
    from meshlib.cli.native_text import _block

    read = read_yaml("\n".join(_block(value, 0)) or "{}")
    assert read[0][0] == value


@given(st.dictionaries(TEXTS, VALUES.filter(lambda value: "null" not in json.dumps(value)), max_size=4))
@settings(max_examples=40, deadline=None)
def test_whatever_is_written_in_toml_reads_back(value: dict[str, Any]) -> None:
    assert tomllib.loads("\n".join(f"{_toml_key(key)} = {_inline(each)}" for key, each in value.items())) == value


def test_comments_say_where_each_service_and_route_comes_from_and_what_is_not_honoured(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "bookinfo.yaml").write_text(BOOKINFO)
    (tmp_path / "mesh.yaml").write_text("namespace: shop\nservices:\n  reviews: {timeout: 3s}\n")

    result = run("convert", "mesh.yaml", "k")
    lines = result.stdout.splitlines()

    assert result.exit_code == 0
    assert lines[0] == "# Made by `meshlib convert` from mesh.yaml, k/bookinfo.yaml."
    assert any(
        line.startswith("#   k/bookinfo.yaml:21: VirtualService shop/reviews: spec.http[1].corsPolicy")
        for line in lines
    )
    place = lines.index("  reviews:")
    assert lines[place - 1].startswith("  # from mesh.yaml:3, k/bookinfo.yaml:")
    assert "VirtualService shop/reviews" in lines[place - 1] and "DestinationRule shop/reviews" in lines[place - 1]
    assert "    timeout: 3s" in lines
    place = next(index for index, line in enumerate(lines) if "      - name: jason" in line)
    assert lines[place - 1] == "      # from k/bookinfo.yaml:8: VirtualService shop/reviews"
    assert "1 thing not honoured" in result.stderr
    assert run("convert", "--strict", "mesh.yaml", "k").exit_code == 1


def test_it_is_written_to_a_file_but_over_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(NATIVE)

    assert run("convert", "mesh.yaml", "-o", "native.json").exit_code == 0
    assert json.loads((tmp_path / "native.json").read_text())["namespace"] == "shop"
    again = run("convert", "mesh.yaml", "-o", "native.json")
    assert (again.exit_code, again.stderr) == (2, "native.json is there already; --force replaces it\n")
    assert run("convert", "mesh.yaml", "-o", "native.json", "--force").exit_code == 0


def test_variables_stay_and_so_do_dollar_signs_of_documents(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("namespace: shop\nredis: {url: '${REDIS_URL:-redis://127.0.0.1}'}\n")
    (tmp_path / "b.yaml").write_text(BOOKINFO)

    text = run("convert", "mesh.yaml", "b.yaml").stdout

    assert 'url: "${REDIS_URL:-redis://127.0.0.1}"' in text
    assert 'x-price: "$$$${5}"' in text  # a document's dollar signs are not those of variables


def test_null_is_not_in_toml(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("services: {orders: {timeout: null}}")

    result = run("convert", "mesh.yaml", "--format", "toml")

    assert result.exit_code == 2
    assert "TOML has no null, and services.orders.timeout is null" in result.output


def test_what_is_wrong_is_not_converted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("sevices: {}")

    result = run("convert", "mesh.yaml")

    assert result.exit_code == 2
    assert "did you mean 'services'?" in result.stderr and not result.stdout
