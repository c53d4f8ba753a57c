"""Whatever stands in documents of Kubernetes and the Gateway API: a configuration comes of it, or a clear error."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.config.dialects.draft import Context
from meshlib.config.dialects.resources import resources_in
from meshlib.config.dialects.table import translate
from meshlib.config.documents import Document
from tests.config.dialects.gateway_api.test_fields import DOCUMENTS, OTHERS
from tests.config.dialects.kubernetes.test_kubernetes import FULL

ALL: list[dict[str, Any]] = [*OTHERS[1:], *DOCUMENTS.values(), *FULL]

_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from(
        ["", "/", "*", "a.b", "None", "0s", "Exact", "Service", "orders", "::1", {}, [], [None], {"a": {}}, [[]]]
    ),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, each in items for inner in _paths(each, (*path, key)))]


_PATHS = [(index, path) for index, each in enumerate(ALL) for path in _paths(each) if path not in ((), ("kind",))]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(_PATHS), _ODD), min_size=1, max_size=4))
def test_no_value_anywhere_breaks_the_reader(changes: list[tuple[tuple[int, tuple[Any, ...]], Any]]) -> None:
    documents = deepcopy(ALL)
    for (index, path), odd in changes:
        here: Any = documents[index]
        try:
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = deepcopy(odd)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    resources = [resource for each in documents for resource in resources_in(Document("given.yaml", each))]
    data, _ = translate(resources, Context("shop", zone="a")).data()
    assert isinstance(data, dict)
