"""Which configuration holds, and what is refused before the first call."""

from __future__ import annotations

import logging
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.choose import choose_settings
from meshlib.errors import ConfigError


@pytest.mark.parametrize(
    ("config", "whom"),
    [
        ({"services": {"orders": {"http2": True}, "carts": {}}}, "of orders"),
        ({"defaults": {"http2": True}}, "of the defaults"),
    ],
)
def test_http2_without_its_package_is_refused_at_once(
    config: dict[str, Any], whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = util.find_spec
    monkeypatch.setattr("meshlib.config.choose.find_spec", lambda name: None if name == "h2" else find(name))
    with pytest.raises(ConfigError, match=whom) as caught:
        choose_settings(config, {})
    assert 'pip install "meshlib-http[http2]"' in str(caught.value)
    choose_settings({**config, "wire": "stock"}, {})


def test_what_documents_say_and_is_not_done_is_logged_once_each_up_to_a_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def logged(fields: int) -> list[str]:
        caplog.clear()
        unknown = "".join(f"X{index}: 1\n" for index in range(fields))
        (tmp_path / "router.yaml").write_text(f"Kind: service-router\nName: web\n{unknown}")
        with caplog.at_level(logging.WARNING, "meshlib"):
            choose_settings(tmp_path / "router.yaml", {})
        return [record.getMessage() for record in caplog.records]

    assert logged(0) == []
    (line,) = logged(1)
    assert f"{tmp_path / 'router.yaml'}:3: service-router web: X0: is not honoured" in line
    assert len(logged(30)) == 21
    assert logged(30)[-1] == "and 10 more that are not honoured: `meshlib check` names all"
