"""``meshlib check``, ``meshlib diff`` and ``meshlib schema``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from meshlib.cli.check import Remark, _command
from meshlib.config.schema import config_schema

GOOD = "services: {orders: {timeout: 2s, routes: [{match: [{method: GET}]}]}}\n"
WRONG = "services:\n  orders:\n    timout: 2s\n  stock:\n    timeout: soon\n"
ROUTER = {
    "Kind": "service-router",
    "Name": "web",
    "Routes": [{"Match": {"HTTP": {"PathPrefix": "/admin"}}, "Destination": {"Service": "admin"}}],
}
Run = Callable[..., Result]


def test_a_good_file_passes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(GOOD)

    result = run("check", "mesh.yaml")

    assert (result.exit_code, result.output) == (0, "1 file, 1 service, 1 route: 0 errors\n")


def test_all_that_is_wrong_in_all_files_is_said_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    (tmp_path / "b.yaml").write_text("mode: maybe\n")

    result = run("check", "a.yaml", "b.yaml")

    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "error     a.yaml:3: services.orders.timout: unknown field; did you mean 'timeout'?",
        "error     a.yaml:5: services.stock.timeout: 'soon' is not a duration; "
        "write it like 500ms, 2s, 1m, or as a number of seconds",
        "error     b.yaml:1: mode: 'maybe' is not one of off, observe, on",
        "2 files, 2 services, 0 routes: 3 errors",
    ]


def test_what_is_no_yaml_is_an_error_with_its_line_beside_what_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("services: [\n")
    (tmp_path / "b.yaml").write_text(WRONG)

    result = run("check", "a.yaml", "b.yaml")

    assert result.exit_code == 1
    assert "error     a.yaml:" in result.output
    assert "error     b.yaml:3" in result.output


def test_a_directory_is_read_with_all_in_it_and_several_files_are_one_configuration(run: Run, tmp_path: Path) -> None:
    (tmp_path / "k" / "deep").mkdir(parents=True)
    (tmp_path / "k" / "a.yaml").write_text(
        "services: {a: {routes: [{backends: [{subset: v1}]}], subsets: {v1: {v: a}}}}"
    )
    (tmp_path / "k" / "deep" / "b.json").write_text(
        '{"services": {"b": {"routes": [{"backends": [{"service": "a"}]}]}}}'
    )
    (tmp_path / "c.toml").write_text("[services.c.subsets.v1]\nversion = 'v1'\n")

    result = run("check", "k", "c.toml")

    assert (result.exit_code, result.output) == (0, "3 files, 3 services, 2 routes: 0 errors\n")


def test_variables_may_be_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("services: {orders: {timeout: '${T}'}}")

    assert run("check", "mesh.yaml").exit_code == 1
    assert run("check", "mesh.yaml", "--set", "T=2s").exit_code == 0
    assert run("check", "mesh.yaml", "--set", "T").exit_code == 2


def test_a_service_that_is_nearly_declared_is_a_hint_and_no_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("""services:
  orders:
    routes:
      - mirror: {service: ordrs}
        backends:
          - {service: order}
          - {service: orders-v2}
          - {service: stock}
route_sets:
  a:
    - mirror:
        - {service: oders}
""")

    result = run("check", "mesh.yaml", "--strict")

    route = "services.orders.routes[0]"
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            f"hint      mesh.yaml:6: {route}.backends[0].service: "
            "the service 'order' is not declared; did you mean 'orders'?",
            f"hint      mesh.yaml:4: {route}.mirror.service: "
            "the service 'ordrs' is not declared; did you mean 'orders'?",
            "hint      mesh.yaml:12: route_sets.a[0].mirror[0].service: "
            "the service 'oders' is not declared; did you mean 'orders'?",
            "1 file, 1 service, 1 route: 0 errors, 3 hints",
        ],
    )
    assert "::notice file=mesh.yaml,line=4::" in run("check", "mesh.yaml", "--format", "github").output


def test_a_file_of_something_else_is_one_error(run: Run, tmp_path: Path) -> None:
    values = ["replicaCount: 1", "image: {tag: x}", "service: {}", "ingress: {}", "nodeSelector: {}", "tolerations: []"]
    (tmp_path / "values.yaml").write_text("\n".join(values))
    (tmp_path / "mesh.yaml").write_text("services: {}\none: 1\ntwo: 2\nthree: 3\n")

    assert run("check", "values.yaml").output.splitlines() == [
        "error     values.yaml:1: has fields that no configuration has, "
        "'replicaCount', 'image', 'nodeSelector' and 1 more: is this file meant?",
        "1 file, 0 services, 0 routes: 1 error",
    ]
    assert run("check", "mesh.yaml").output.count("unknown field") == 3


def test_files_are_named_without_detours(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b" / "..", target_is_directory=True)
    (tmp_path / "a" / "mesh.yaml").write_text("include: [../b/x.yaml, '../link/y.yaml']\n")
    (tmp_path / "b" / "x.yaml").write_text("mode: maybe\n")
    (tmp_path / "y.yaml").write_text("egress: maybe\n")

    told = run("check", "a/mesh.yaml").output

    assert "error     b/x.yaml:1: mode" in told
    assert "error     link/y.yaml:1: egress" in told


def test_a_file_that_is_not_there_is_a_wrong_call(run: Run) -> None:
    assert run("check", "nothing.yaml").exit_code == 2
    nothing_to_check = run("check")
    assert nothing_to_check.exit_code == 2 and "here is no mesh.yaml" in nothing_to_check.output


def test_without_files_it_is_the_one_that_a_mesh_would_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mesh.toml").write_text("")
    assert run("check").output == "1 file, 0 services, 0 routes: 0 errors\n"

    monkeypatch.setenv("MESHLIB_CONFIG", "nowhere.yaml")
    assert run("check").exit_code == 2


def test_what_is_not_honoured_is_said_and_is_an_error_if_strict(run: Run, tmp_path: Path) -> None:
    router = {**ROUTER, "Routes": [{**ROUTER["Routes"][0], "Sparkle": True}]}
    (tmp_path / "router.json").write_text(json.dumps(router))

    lax, strict = run("check", "router.json"), run("check", "--strict", "router.json")

    assert (lax.exit_code, strict.exit_code) == (0, 1)
    assert "ignored   router.json:1: service-router web: Routes[0].Sparkle: is not honoured" in lax.output
    assert "1 not honoured" in lax.output
    assert "error     router.json:1: service-router web: Routes[0].Sparkle" in strict.output
    assert strict.output.rstrip().endswith("1 error")


def test_what_the_file_itself_takes_strictly_is_said_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("documents: {strict: true}\n---\nKind: service-router\nName: web\nSparkle: 1\n")

    result = run("check", "mesh.yaml")

    assert result.exit_code == 1
    assert result.output.count("Sparkle") == 1
    assert result.output.startswith("error     mesh.yaml:5: service-router web: Sparkle: is not honoured")


def test_documents_that_say_nothing_of_calls_are_named_only_if_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "k.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")

    assert "Deployment" not in run("check", "k.yaml").output
    assert "passed    k.yaml:1: Deployment x" in run("check", "--all", "k.yaml").output


def test_json_has_all_of_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(WRONG)

    told = json.loads(run("check", "--format", "json", "mesh.yaml").output)

    assert told["ok"] is False
    assert (told["files"], told["services"]) == (["mesh.yaml"], 2)
    assert told["remarks"][0] == {
        "kind": "error",
        "file": "mesh.yaml",
        "line": 3,
        "text": "services.orders.timout: unknown field; did you mean 'timeout'?",
    }


def test_github_shows_each_at_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(WRONG)

    lines = run("check", "--format", "github", "mesh.yaml").stdout.splitlines()

    assert lines[0] == ("::error file=mesh.yaml,line=3::services.orders.timout: unknown field; did you mean 'timeout'?")
    assert _command(Remark("ignored", "a,b:c.yaml", None, "50%\nof it"), "ignored") == (
        "::warning file=a%2Cb%3Ac.yaml::50%25%0Aof it"
    )


def test_a_secret_in_the_environment_is_not_in_the_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    (tmp_path / "mesh.yaml").write_text("services: {orders: {timeout: '${SECRET}'}}")

    for arguments in (["check"], ["check", "--format", "json"], ["convert"]):
        assert "s3cr3t" not in run(*arguments, "mesh.yaml").output


def test_diff_says_what_is_different_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD.replace("2s", "1s"))

    result = run("diff", "a.yaml", "b.yaml")

    assert (result.exit_code, result.stdout) == (1, "orders: timeout 2s -> 1s\n")
    assert json.loads(run("diff", "--json", "a.yaml", "b.yaml").stdout)[0]["field"] == "timeout"
    same = run("diff", "a.yaml", "a.yaml")
    assert (same.exit_code, same.stdout) == (0, "no difference\n")


def test_diff_reads_what_a_shell_pipes_to_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    command = f"{sys.executable} -m meshlib diff <(sed s/2s/1s/ a.yaml) a.yaml"

    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )

    assert (done.returncode, done.stdout) == (1, "orders: timeout 1s -> 2s\n"), done.stderr


@pytest.mark.parametrize("command", ["cat a.yaml | {} check -", "{} check - < a.yaml"])
def test_what_comes_by_the_standard_input_is_read(tmp_path: Path, command: str) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)

    command = command.format(f"{sys.executable} -m meshlib")
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )

    assert done.returncode == 1
    assert "error     /dev/stdin:" in done.stdout


def test_diff_of_what_cannot_be_read_exits_with_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(WRONG)

    result = run("diff", "a.yaml", "b.yaml")

    assert result.exit_code == 2
    assert "did you mean 'timeout'?" in result.stderr


def test_schema_is_printed_or_written(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("schema").stdout) == config_schema()

    assert run("schema", "-o", "mesh.schema.json").exit_code == 0
    assert json.loads((tmp_path / "mesh.schema.json").read_text()) == config_schema()
    assert run("schema", "-o", "no/where.json").exit_code == 2
