"""Cells: each belongs to one object, and what a pick reads there is what the objects say."""

from __future__ import annotations

import gc
import math
import threading
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.cells import CELLS, give_back, take
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.load import EndpointNode, Load
from tests.core import NOW, cluster_state, endpoints


def test_no_two_take_the_same_cell_whatever_the_threads() -> None:
    taken: list[list[int]] = [[] for _ in range(8)]

    def work(mine: list[int]) -> None:
        for step in range(3000):
            mine.append(take())
            if step % 3 == 0:
                give_back(mine.pop())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_of_them = [cell for mine in taken for cell in mine]
    assert len(set(all_of_them)) == len(all_of_them) == 8 * 2000
    assert max(all_of_them) < len(CELLS)
    for cell in all_of_them:
        give_back(cell)


def test_cells_of_what_is_gone_are_used_again_and_those_of_an_old_view_are_not() -> None:
    gc.collect()  # so that later nothing of other tests is given back
    state = cluster_state()
    old = state.view(endpoints(3), NOW, Random(1))
    cells = {cell for member in old.members for cell in (member.node.cell, member.load.cell)}
    later = NOW
    for _ in range(3):
        later += 1000
        state.view([], later, Random(1))
    others = [EndpointNode() for _ in range(1000)]
    assert not cells & {node.cell for node in others}
    del old
    gc.collect()
    others += [EndpointNode() for _ in range(1000)]
    assert cells <= {node.cell for node in others}


def test_churn_without_end_does_not_make_the_array_grow() -> None:
    state = cluster_state()
    sizes = []
    for step in range(40):
        state.view([Endpoint(f"h{step}-{n}", 80) for n in range(200)], NOW + 400 * step, Random(1))
        sizes.append(len(CELLS))
    assert sizes[-1] == sizes[10]


def test_the_copy_of_a_count_is_right_once_all_threads_are_done() -> None:
    node = EndpointNode()

    def work(more: int) -> None:
        for _ in range(3000):
            node.enter()
            node.enter()
            node.exit()
        for _ in range(3000 - more):
            node.exit()

    threads = [threading.Thread(target=work, args=(more,)) for more in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert CELLS[node.cell] == node.in_flight == sum(range(8))


def test_counts_are_exact_while_threads_make_the_array_grow() -> None:
    made: list[list[EndpointNode]] = [[] for _ in range(8)]

    def work(mine: list[EndpointNode]) -> None:
        for _ in range(600):
            mine.append(EndpointNode())
            mine[-1].enter()
            for node in mine[-3:]:
                node.enter()
                node.exit()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {CELLS[node.cell] for mine in made for node in mine} == {1.0}


def test_attempts_of_the_parent_that_end_in_the_child_count_nothing() -> None:
    node = EndpointNode()
    node.enter()
    node.after_fork()
    node.exit()
    assert (node.in_flight, CELLS[node.cell]) == (0, 0)
    node.enter()
    assert (node.in_flight, CELLS[node.cell]) == (1, 1)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["answered", "given_up"]), st.floats(0, 20), st.floats(0, 100)), max_size=20
)


@given(EVENTS, EVENTS, st.floats(0, 100))
def test_of_two_the_one_with_the_lower_score_costs_less(
    one: list[tuple[str, float, float]], other: list[tuple[str, float, float]], after_s: float
) -> None:
    loads, end = [], NOW
    for events in (one, other):
        load, now = Load(NOW, 0.03, 10.0), NOW
        for kind, step, elapsed in events:
            now += step
            getattr(load, kind)(now, elapsed)
        loads.append(load)
        end = max(end, now)
    end += after_s
    first, second = (load.cost(end) for load in loads)
    more = CELLS[loads[1].cell] - CELLS[loads[0].cell]
    if first > 0 and second > 0:
        assert more == pytest.approx(math.log(second) - math.log(first), abs=1e-6)


def test_a_penalty_has_no_score_until_it_is_over() -> None:
    load = Load(NOW, 0.02, 10.0)
    load.failed(NOW, 0.001, 0.02)
    assert math.isnan(CELLS[load.cell])
    load.answered(NOW + 1, 0.02)
    assert math.isnan(CELLS[load.cell])
    assert load.cost(NOW + 100) < 0.02
    assert CELLS[load.cell] == pytest.approx(math.log(load.cost_s) + load.stamp / 10.0)
