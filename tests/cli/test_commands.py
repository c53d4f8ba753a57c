"""The command itself, and `doctor`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import Result

from meshlib._version import __version__
from meshlib.cli import doctor
from meshlib.cli.commands import meshlib
from meshlib.cli.main import main

COMMANDS = ("check", "convert", "diff", "explain", "init", "override", "schema")


def lines(result: Result, about: str) -> list[str]:
    return [line for line in result.output.splitlines() if line[9:].startswith(about + " ")]


def test_help_names_the_commands(run: Callable[..., Result]) -> None:
    result = run("--help")

    assert result.exit_code == 0
    named = {line.split()[0] for line in result.output.splitlines() if line.strip()}
    assert set(COMMANDS) <= named


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_fits_a_screen_and_has_an_example(command: str, run: Callable[..., Result]) -> None:
    result = run(command, "--help")

    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 40
    assert max(map(len, result.output.splitlines())) <= 80
    assert f"  meshlib {command} " in result.output or f"(meshlib {command} " in result.output


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meshlib", "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
    )

    assert (done.returncode, done.stdout) == (0, f"meshlib-http {__version__}\n")


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert capsys.readouterr().err == f'the command `meshlib` needs {name}: pip install "meshlib-http[cli]"\n'


def test_the_demo_without_its_extra_says_what_to_install(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)

    result = run("demo")

    assert result.exit_code == 2
    assert 'the demo needs flask: pip install "meshlib-http[demo]"' in result.output


def test_the_demo_refuses_a_consul_that_does_not_run(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHLIB_CONSUL", "/bin/true")

    result = run("demo", "--consul")

    assert result.exit_code == 2
    assert "$MESHLIB_CONSUL is '/bin/true', which does not run as Consul" in result.output


def test_doctor_finds_nothing_wrong_without_a_configuration(run: Callable[..., Result]) -> None:
    result = run("doctor")

    assert result.exit_code == 0
    assert lines(result, "meshlib-http")[0].startswith(f"ok       meshlib-http       {__version__}")
    assert "the defaults hold" in lines(result, "configuration")[0]
    assert "not there yet" in lines(result, "registry")[0]


def test_doctor_names_the_configuration_and_its_faults(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("services: {orders: {timeout: 2s}}\n")
    assert "mesh.yaml: valid, 1 service, mode on" in lines(run("doctor"), "configuration")[0]

    file.write_text("services: {orders: {timout: 2s}}\n")
    result = run("doctor")

    assert result.exit_code == 1
    assert lines(result, "configuration")[0].startswith("error")
    assert "did you mean 'timeout'?" in result.output


def test_doctor_names_the_services_with_shadows(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("services: {orders: {shadow: {throttle: {}}}, stock: {}}\n")

    (line,) = lines(run("doctor"), "shadow")

    assert line.endswith("orders: policies run beside the live ones and decide nothing")


def test_doctor_says_that_documents_have_fields_that_are_not_honoured(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    router = "Kind: service-router\nName: web\nSparkle: true\n"
    (tmp_path / "mesh.yaml").write_text(f"service: checkout\n---\n{router}")

    (line,) = lines(run("doctor"), "documents")

    assert line.endswith("of what they say, 1 thing is not honoured: `meshlib check`")


def test_doctor_warns_of_zones_where_nobody_says_which_is_ours(run: Callable[..., Result], tmp_path: Path) -> None:
    written = "services: {orders: {load_balancing: {failover: true}}, stock: {load_balancing: {failover: false}}}\n"
    (tmp_path / "mesh.yaml").write_text(written)
    (line,) = lines(run("doctor"), "locality")
    assert line.startswith("warning")
    assert "orders: 'failover' does nothing until 'locality'" in line

    (tmp_path / "mesh.yaml").write_text("locality: {region: eu}\n" + written)
    assert lines(run("doctor"), "locality") == []


def test_doctor_says_that_the_redis_of_the_fleet_does_not_answer(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text('redis: {url: "redis://:s3cr3t@127.0.0.1:1/0"}\n')

    result = run("doctor")

    assert lines(result, "redis")[-1].startswith("warning")
    assert "at 127.0.0.1: no answer (ConnectionError)" in lines(result, "redis")[-1]
    assert "s3cr3t" not in result.output


def test_doctor_says_that_a_registry_cannot_be_reached(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text('discovery: [{consul: {address: "http://127.0.0.1:1"}}, {local: {}}]\n')
    (tmp_path / "registry").mkdir(mode=0o777)
    (tmp_path / "registry").chmod(0o777)

    result = run("doctor")

    consul, local = lines(result, "registry")
    assert result.exit_code == 1
    assert consul.startswith("error") and "Consul at http://127.0.0.1:1" in consul
    assert local.startswith("error") and str(tmp_path / "registry") in local


def test_doctor_warns_of_the_package_with_the_same_import_name(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "3.0.1" if name == "meshlib" else real(name))

    result = run("doctor")

    assert result.exit_code == 0
    assert lines(result, "meshlib")[0].startswith("warning")
    assert "3-D geometry" in lines(result, "meshlib")[0]


def test_doctor_says_which_extra_brings_what_is_missing(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_OPTIONAL", (("otel", "no-such-distribution"),))

    result = run("doctor")

    assert lines(result, "no-such-distribution") == [
        'note     no-such-distribution not installed; pip install "meshlib-http[otel]" brings it'
    ]


PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_every_option_and_none_that_is_not_there(command: str) -> None:
    section = re.split(r"^## ", PAGE.read_text().split(f"\n## `meshlib {command}", 1)[1], flags=re.MULTILINE)[0]
    options = {name for parameter in meshlib.commands[command].params for name in parameter.opts if name[:1] == "-"}

    mentioned = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", section))

    assert mentioned - options - {"-m", "-H"} == set()  # of python and curl
    assert {name for name in options if name[:2] == "--"} - mentioned <= {"--output", "--header"}


def test_every_command_is_on_the_page_and_every_command_on_the_page_is_there() -> None:
    named = set(re.findall(r"`?meshlib ([a-z]+)", PAGE.read_text()))
    assert named == set(meshlib.commands)
