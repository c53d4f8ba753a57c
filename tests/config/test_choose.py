"""Which configuration holds, and what is refused before the first call."""

from __future__ import annotations

from importlib import util
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
