"""What holds for any configuration: it compiles and can be called with, or there is a ConfigError in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from meshlib.config.compile import compile_config
from meshlib.config.dialects.consul.live import LiveChains
from meshlib.config.dialects.draft import Context
from meshlib.config.documents import Document, DocumentError, parse
from meshlib.config.load import Loading
from meshlib.config.model import MeshConfig
from meshlib.config.settings import MeshSettings
from meshlib.errors import ConfigError
from meshlib.routing.answer import answer_of
from meshlib.routing.match import RequestView
from meshlib.routing.rewrite import matched_path, rewrite_path
from meshlib.routing.route import find_route

__all__ = ["check_bytes", "check_chain", "check_documents", "check_error", "check_settings"]

_LONGEST_TEXT: Final = 4000
"""Of one problem. Whoever reads it has a screen."""

_REQUESTS: Final = (
    ("GET", "/", "", {}),
    ("POST", "/a/b%2Fc/../d", "debug=1&x=%ff&x", {"end-user": "jason", "cookie": "user=x; a=b"}),
    ("\x00", "", "=&&", {"x": "\x80\xff" * 40}),
)


def check_bytes(content: bytes, suffix: str) -> ConfigError | MeshConfig | None:
    """A file's content, to the end; None if it is not even in its format."""
    try:
        documents = parse(content, suffix, f"some{suffix}")
    except DocumentError as error:
        _check_text(str(error))
        return None
    return _check(documents)


def check_documents(documents: Iterable[Mapping[str, Any]]) -> ConfigError | MeshConfig:
    """Documents that were read already, to the end."""
    return _check([Document("some.yaml", dict(each)) for each in documents])


def check_chain(chain: Mapping[str, Any]) -> None:
    """Consul's answer for one service."""
    live = LiveChains()
    with contextlib.suppress(ConfigError):
        live.take("web", chain, Context())
    live.services(Context())


def _check(documents: Iterable[Document]) -> ConfigError | MeshConfig:
    loading = Loading({"X": "1"})
    for document in documents:
        given = dict(document.data)
        given.pop("include", None)  # of which files would be read
        loading.add(Document(document.name, given, document.lines, Path("/nowhere")), (), ())
    try:
        config = loading.finish("it is wrong")
    except ConfigError as error:
        check_error(error)
        return error
    for note in config.notes:
        _check_text(str(note))
    check_settings(compile_config(config))
    return config


def check_error(error: ConfigError) -> None:
    """It says what is wrong, in words that no terminal and no log takes for anything else."""
    assert error.problems
    for text in error.problems:
        _check_text(text)


def _check_text(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) <= _LONGEST_TEXT, text


def check_settings(settings: MeshSettings) -> None:
    """Any call finds its way, or none, and nothing is raised."""
    repr(settings)
    for service in settings.services.values():
        for method, path, query, headers in _REQUESTS:
            request = RequestView(method, path, query, headers, host="a", random=lambda: 0.5)
            route = find_route(service.routes, request)
            if route is None:
                continue
            matched = matched_path(route.matches, request)
            if route.reply is not None:
                answer_of(route.reply, request, matched)
            elif route.rewrite is not None:
                rewrite_path(route.rewrite, path, matched)
