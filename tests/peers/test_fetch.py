"""Finding and fetching the programs, as far as it needs no network."""

from pathlib import Path

import pytest

from tests.peers import fetch

DEB822 = """\
Types: deb deb-src
# a snapshot of that day
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
"""


def test_deb822_sources_are_copied_with_the_suite_changed(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(DEB822)
    (parts / "other.sources").write_text("Types: deb\nURIs: http://other.test\nSuites: nodistro\nComponents: main\n")

    files = fetch.suite_sources(tmp_path, "bookworm", "bullseye")

    assert list(files) == ["debian.sources"]
    assert files["debian.sources"] == (
        "Types: deb\n"
        "URIs: http://mirror.test/debian\n"
        "Suites: bullseye\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://mirror.test/debian-security\n"
        "Suites: bullseye-security\n"
        "Components: main\n"
    )


def test_a_disabled_stanza_is_left_out(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text("Enabled: no\nTypes: deb\nURIs: http://m.test\nSuites: bookworm\n")

    assert fetch.suite_sources(tmp_path, "bookworm", "bullseye") == {}


def test_one_line_sources_are_copied_with_the_suite_changed(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# the archive\n"
        "deb http://mirror.test/debian trixie main contrib\n"
        "deb-src http://mirror.test/debian trixie main\n"
        "deb [signed-by=/k.gpg arch=amd64] http://mirror.test/debian-security trixie-security main\n"
        "deb http://mirror.test/debian trixie-updates main\n"
        "deb http://other.test/apt stable main\n"
    )

    assert fetch.suite_sources(tmp_path, "trixie", "bullseye") == {
        "sources.list": (
            "deb http://mirror.test/debian bullseye main\n"
            "deb [signed-by=/k.gpg arch=amd64] http://mirror.test/debian-security bullseye-security main\n"
        )
    }


def test_an_environment_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "consul-of-mine"
    mine.write_text("#!/bin/sh\necho Consul v1.99.0\n")
    mine.chmod(0o755)
    monkeypatch.setenv("MESHLIB_CONSUL", str(mine))

    assert fetch.find("consul") == mine
    assert fetch.version("consul", mine) == "1.99.0"


def test_an_environment_variable_that_names_nothing_runnable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_CONSUL", "/nowhere/consul")

    with pytest.raises(fetch.PeerMissing, match=r"\$MESHLIB_CONSUL is '/nowhere/consul'"):
        fetch.get("consul")


def test_path_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, release in (("path", "9.9.9"), ("cache/bin", "1.1.1")):
        binary = tmp_path / place / "redis-server"
        binary.parent.mkdir(parents=True)
        binary.write_text(f"#!/bin/sh\necho Redis server v={release}\n")
        binary.chmod(0o755)
    monkeypatch.delenv("MESHLIB_REDIS", raising=False)
    monkeypatch.setenv("MESHLIB_PEERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")

    assert fetch.find("redis") == tmp_path / "path" / "redis-server"

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(fetch, "SYSTEM_DIRS", ())
    if not Path("/usr/bin/redis-server").exists():
        assert fetch.find("redis") == tmp_path / "cache" / "bin" / "redis-server"


def test_a_failed_download_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHLIB_WRK", raising=False)
    monkeypatch.setenv("MESHLIB_PEERS_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fetch, "SYSTEM_DIRS", ())

    with pytest.raises(fetch.PeerMissing, match="no apt-get"):
        fetch.get("wrk")

    assert not (tmp_path / "wrk").exists()
