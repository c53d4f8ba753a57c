"""The examples run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from meshlib import Mesh
from tests.peers.process import Process, accepts, free_port, wait_until
from tests.peers.servers import Redis

pytestmark = pytest.mark.slow  # a process or more for each, and the same on every Python

EXAMPLES = Path(__file__).parent.parent / "examples"


def environment(directory: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
    return {**env, "MESHLIB_LOCAL_DIR": str(directory / "registry")}


def what_it_prints(name: str, directory: Path, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=directory,
        env={**environment(directory), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_user_who_asks_too_much_is_refused_and_others_are_not(tmp_path: Path) -> None:
    *users, waits = what_it_prints("traffic/rate_limit_per_user.py", tmp_path)

    refused = "then refused by the rate-limit; again in less than a second: True"
    assert users == [f"ada: 5 calls, {refused}", f"bob: 5 calls, {refused}", f"batch: 2 calls, {refused}"]
    assert waits == "or calls wait for their turn: ['rate-limit', 'rate-limit', 'rate-limit']"


def test_a_service_that_declines_is_spared(tmp_path: Path) -> None:
    assert what_it_prints("traffic/throttle.py", tmp_path) == [
        "without: declined more than it accepted: True and nothing was spared: True",
        "with: it declined less than half as much: True because calls were not sent: True",
        "and it did its work all the same: True",
    ]


def test_slow_reports_leave_room_for_checkouts(tmp_path: Path) -> None:
    assert what_it_prints("traffic/slow_reports_and_checkouts.py", tmp_path) == [
        "one limit for all: 6 reports under way; the checkout: refused by the limit",
        "divided: 3 reports under way; the checkout: 204",
    ]


def test_an_endpoint_that_fails_every_third_call_is_left_out(tmp_path: Path) -> None:
    assert what_it_prints("traffic/failure_accrual.py", tmp_path) == [
        "by failures in a row: 10 of 90 calls failed, and an endpoint was ejected for nothing",
        "by its success rate: 2 of 90 calls failed, and an endpoint was ejected for 66.7 % of 6 calls went well,"
        " below 80 %",
    ]


def test_calls_name_the_metadata_of_their_endpoints(tmp_path: Path) -> None:
    assert what_it_prints("traffic/versions_by_metadata.py", tmp_path) == [
        "nothing asked for: {'v1': 10}, fallback default",
        "{'version': 'v2'} asked for: {'v2': 10}, subset version=v2",
        "{'version': 'v3'} asked for: {'v1': 10}, fallback default",
    ]


def test_a_breaker_and_strategies_of_the_user_do_what_they_say(tmp_path: Path) -> None:
    assert what_it_prints("traffic/breaker_and_retries_of_your_own.py", tmp_path) == [
        "asked again while it was not ready: [202, 202, 200]",
        "an error is an answer, and no failure: [500, 500]",
        "the listener: closed to open",
        "these are failures: [503, 503, 503]",
        "refused, because of CircuitBreakerError; the breaker is open",
    ]


def test_a_fleet_shares_a_breaker(tmp_path: Path, redis_server: Redis) -> None:
    assert what_it_prints("traffic/fleet_breaker.py", tmp_path, REDIS_URL=redis_server.url) == [
        "the first process: [503, 503, 503]",
        "the second one: the circuit breaker 'orders' is open",
        "refused by: fleet-circuit-breaker",
    ]


def test_without_a_redis_its_example_says_so(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    (line,) = what_it_prints("traffic/fleet_breaker.py", tmp_path, REDIS_URL=url)
    assert line == "skipped: no Redis (ConnectionError)"


def test_the_quickstart_makes_a_call_and_shows_its_record(tmp_path: Path) -> None:
    answer, record = what_it_prints("quickstart.py", tmp_path)

    assert answer == "{'order': 42}"
    assert record.startswith("GET orders/orders/42 (default): 200 in ")


def test_calls_go_where_servers_have_room(tmp_path: Path) -> None:
    before, then = what_it_prints("traffic/server_weights.py", tmp_path)

    assert before == "before they have reported for long enough: fast 50%, slow 50%"
    assert then == "then: fast 75%, slow 25%"


def test_probes_lead_calls_away_from_what_is_slow(tmp_path: Path) -> None:
    shares, _ = what_it_prints("traffic/prequal.py", tmp_path)
    slow, fast = map(int, re.findall(r"\d+", shares))

    assert fast > 1.5 * slow  # with nothing else to do on the machine five times as many


def test_a_service_says_how_loaded_it_is_to_whom_asks(tmp_path: Path) -> None:
    silent, probe, told = what_it_prints("server/load_reports.py", tmp_path)

    assert silent == "not asked: None None"
    assert probe == "a probe, with five requests under way: in_flight=5"
    assert "named_metrics.in_flight, named_metrics.latency_ms" in told


def test_a_fleet_with_apertures_calls_all_servers_alike(tmp_path: Path) -> None:
    called, shares, _ = what_it_prints("traffic/aperture.py", tmp_path)

    assert called == "servers that each client calls: 16 of 40"
    assert shares == "shares of the servers, most to least: 1.000000"


def test_hedges_make_up_for_a_replica_that_is_slow_now_and_then(tmp_path: Path) -> None:
    told = [re.findall(r"\d+", line) for line in what_it_prints("traffic/hedging.py", tmp_path)]
    slow, hedges = [int(numbers[0]) for numbers in told], [int(numbers[1]) for numbers in told]

    assert min(slow[:2]) >= 3  # of a busy machine more
    assert hedges[:2] == [0, 0]
    assert max(slow[2:]) < min(slow[:2])
    assert min(hedges[2:]) >= 3


def test_users_stick_to_their_endpoints(tmp_path: Path) -> None:
    users, instances, *truths = what_it_prints("traffic/sticky_users.py", tmp_path)

    assert users == "users of which every call went to one instance: 40 of 40"
    assert instances == "instances in use: 4"
    assert [line.rpartition(": ")[2] for line in truths] == ["True", "True", "True"]


def test_a_server_that_is_not_well_gets_no_calls_until_it_is(tmp_path: Path) -> None:
    assert what_it_prints("traffic/health_checks.py", tmp_path) == [
        "both are well: 10 and 10",
        "the first is not: 0 and 20",
        "why: failed its active check",
        "it is again: 10 and 10",
        "told: check_failed, check_passed",
    ]


def test_policies_are_tried_beside_the_live_ones(tmp_path: Path) -> None:
    assert what_it_prints("traffic/shadow.py", tmp_path) == [
        "10 of 30 calls failed, and nothing was done about it",
        "rate_limit would have decided otherwise 10 times: {'refused': 10, 'let_in': 0, 'waited': 0}",
        "outlier_detection would have decided otherwise 8 times: {'ejected': 1, 'spared': 0}",
        "of the last that failed: outlier_detection: 127.0.0.1:(the first) would have been out",
        "of the last that failed: rate_limit would have refused it",
    ]


def test_a_configuration_is_tried_in_virtual_time(tmp_path: Path) -> None:
    careless, defaults, both, admission = what_it_prints("traffic/simulation.py", tmp_path)

    assert careless == "no budget, no breaker: it never recovers; at the end 0% of the calls are answered in time"
    assert defaults.startswith("the defaults: well again after 1")
    assert both == (
        "and a server that drops what is late: well again after 0 s; at the end 100% of the calls are answered in time"
    )
    assert admission.startswith("careless clients, and a server with admission: well again after 0 s; at the end 100%")


def test_calls_stay_near_until_nobody_near_is_well(tmp_path: Path) -> None:
    near, zone, region = what_it_prints("traffic/failover_between_zones.py", tmp_path)

    assert near.startswith("all zones are well: {'eu-west-1a': 40}, 0 failed; the last from priority 0, ")
    assert zone == (
        "eu-west-1a is down: {'eu-west-1b': 40}, 0 failed; the last from priority 1, locality eu-west/eu-west-1b"
    )
    assert region.startswith("all of eu-west is down: {'us-east-1a': 40}, 0 failed; the last from priority 2, ")


def test_a_service_behind_a_unix_socket_is_called(tmp_path: Path) -> None:
    lines = what_it_prints("unix_socket.py", tmp_path)

    assert lines == ["order 42, asked of orders", "unix:.../orders.sock"]


def test_an_upload_that_is_refused_is_not_sent_and_trailers_are_handed_over(tmp_path: Path) -> None:
    *first, refused, checksum = what_it_prints("streaming.py", tmp_path)

    assert first == ["sent 1 of 2", "sent 2 of 2", "<Response [201 Created]>"]
    assert refused.startswith("<Response [413 ")
    assert checksum == "the checksum is right: True"


def test_faults_are_injected_on_demand(tmp_path: Path) -> None:
    lines = what_it_prints("traffic/faults_on_demand.py", tmp_path)

    assert lines == [
        "as it is: 42",
        "50 ms slower: 42",
        "slower than the timeout: what we knew yesterday",
        "refused: 503 status 503",
        "() no attempt was made",
        "DeadlineExceeded in fault",
        "requests that the server got: 2",
    ]


def test_a_retry_storm_is_avoided(tmp_path: Path) -> None:
    _, unbounded, budget, overloaded = what_it_prints("traffic/retry_storm.py", tmp_path)

    assert unbounded == "no budget: 270"
    assert 10 < int(budget.removeprefix("gRPC's budget, the default: ")) < 40
    assert overloaded == "it says that it is overloaded: 10"


@contextmanager
def example(name: str, port: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setenv("MESHLIB_LOCAL_DIR", str(directory / "registry"))
    argv = [sys.executable, str(EXAMPLES / name), str(port)]
    process = Process(argv, ready=lambda: accepts(port), log=directory / f"{name}.{port}.log")
    process.start()
    try:
        yield process
    finally:
        process.kill()


def test_the_services_find_each_other_and_pass_the_deadline_on(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        ports = {free_port(), free_port()}
        first, _ = [
            stack.enter_context(example("flask_catalogue.py", port, tmp_path, monkeypatch)) for port in sorted(ports)
        ]
        storefront = free_port()
        stack.enter_context(example("fastapi_storefront.py", storefront, tmp_path, monkeypatch))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{storefront}", timeout=10))

        seen: set[int] = set()

        def both_are_used() -> bool:
            page = client.get("/pages/7").raise_for_status().json()
            assert page["item"]["number"] == 7
            assert 0 < page["item"]["left_ms"] <= 300  # of one attempt
            seen.add(page["item"]["from_port"])
            return seen == ports

        wait_until(both_are_used, "both instances of the catalogue are called")
        first.kill()
        for _ in range(20):
            assert client.get("/pages/7").json()["item"]["from_port"] == max(ports)


def test_the_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "MESHLIB_MODE"):
        monkeypatch.delenv(name, raising=False)

    mesh = Mesh.from_file(EXAMPLES / "mesh.yaml")

    assert sorted(mesh.settings.services) == ["catalogue", "orders", "payments"]
    assert [source.name for source in mesh.settings.services["orders"].routes] == ["testers", "canary", "default"]
    assert mesh.settings.register is not None
    mesh.close()


def test_a_change_of_routes_is_reviewed(tmp_path: Path) -> None:
    lines = what_it_prints("routing/review_a_change.py", tmp_path)

    assert [line for line in lines if line.startswith("exit")] == ["exit 0", "exit 1"]
    assert "orders / route everybody: 10 % of calls go to orders/v2 instead of 5 %" in lines
    assert "orders / route everybody: timeout 2s -> 1s" in lines
    assert "to        orders/v2 100 %" in lines


def test_a_configuration_changes_while_calls_are_made(tmp_path: Path) -> None:
    assert what_it_prints("routing/reload.py", tmp_path) == [
        "before: Counter({'v1': 50})",
        "canary at half: ['v1', 'v2']",
        "a slip is refused, and the last good one stays: ['v1', 'v2']",
        "why: 'all': it should be a valid number, unable to parse string as a number",
        "all of it: Counter({'v2': 50})",
    ]


def test_entries_of_consul_route_as_they_stand(tmp_path: Path) -> None:
    assert what_it_prints("routing/consul_entries.py", tmp_path) == [
        "/admin/users is answered by admin, who saw /users",
        "about a tenth of the others get the canary: True",
        "nobody serves the beta yet, so its testers get the canary, by route-2",
        "and now they get the beta",
    ]


def test_a_service_profile_holds_as_it_stands(tmp_path: Path) -> None:
    assert what_it_prints("routing/linkerd_profile.py", tmp_path) == [
        "about a tenth of the calls go to the next version: True",
        "get-books-id: 200, retried: True",
        "post-books: 503, retried: False",
        "what no route takes goes by linkerd-default",
    ]


def test_documents_of_istio_hold_as_they_stand(tmp_path: Path) -> None:
    assert what_it_prints("routing/istio_as_it_stands.py", tmp_path) == [
        "jason gets version two, by the route jason",
        "anna gets version one, by the route everybody",
        "one endpoint fails, and no caller: True",
        "after two errors it is left out: True",
        "what no rule takes is not found: 404",
        "the full name is the same service: one",
    ]


def test_a_directory_of_istio_is_dropped_in(tmp_path: Path) -> None:
    _, different, *lines = what_it_prints("dialects/istio_as_it_is/run.py", tmp_path)

    assert different.startswith("different mesh/ratings.yaml:25: VirtualService ratings: spec.http[1].retries: ")
    assert [line for line in lines if not line.startswith("  endpoint ")] == [
        "4 files, 3 services, 4 routes: 0 errors, 1 honoured differently",
        "exit 0",
        "GET http://reviews:9080/reviews/1: service reviews, mode on",
        "  route testers: to reviews/v2 100 %",
        "everybody: v1 and v3: True, v3 for about a fifth: True",
        "jason: v2",
        "ratings for jason: 500 by ratings-1, status 500",
        "one of two is broken: {'5 stars': 20}, which was tried 2 times",
        "the host that is registered: a cover",
        "another one: EgressRefused",
    ]


def test_documents_of_the_gateway_api_hold_as_they_stand(tmp_path: Path) -> None:
    assert what_it_prints("routing/gateway_api.py", tmp_path)[:6] == [
        "split: both are called: True, the first of them more: True",
        "testers: orders-v2",
        "moved: 301 to http://orders/42",
        "a backend that is not there: 500",
        "GET http://orders/reports: service orders, mode on",
        "  route orders.reports: answers by itself",
    ]


def test_requests_are_told_apart(tmp_path: Path) -> None:
    *answers, jason, testers, refused = what_it_prints("routing/who_gets_what.py", tmp_path)

    assert [line.split("}: ")[1] for line in answers] == [
        "v1, by the route stable",
        "v2, by the route jason",
        "v3, by the route testers",
        "v3, by the route testers",
        "v1, by the route stable",
        "v3, by the route testers",
    ]
    assert jason == "not jason: header end-user is 'eve', not exact 'jason'"
    assert testers.startswith("not testers: cookie group is absent, ")
    assert refused == "a regex that RE2 does not have is refused: True"


def test_a_service_that_moved_answers_under_its_old_paths(tmp_path: Path) -> None:
    rewritten, redirected, followed, gone, *_ = what_it_prints("routing/what_a_route_does.py", tmp_path)

    sent = "/api/orders/42 was sent as /42: orders.internal/42?full=1 tenant=blue, False"
    assert rewritten == sent
    assert redirected == "308 by v1/moved: http://orders/v2/42?full=1, 0 attempts"
    assert followed == "followed: orders/v2/42?full=1 tenant=None"
    assert gone == "410 by v1/exports: direct response"


def test_a_canary_has_the_same_users_and_grows_by_others(tmp_path: Path) -> None:
    lines = what_it_prints("routing/canary_per_user.py", tmp_path)

    assert [line.rpartition(": ")[2] for line in lines] == ["True"] * 4


def test_a_new_version_gets_copies_and_nobody_notices(tmp_path: Path) -> None:
    assert what_it_prints("routing/mirroring.py", tmp_path) == [
        "answers: Counter({200: 5})",
        "nobody waited for the copies: True",
        "mirrored to: ('orders-next',)",
        "orders got: 5 and orders-next: 5",
    ]


def test_one_request_reaches_a_developers_instance_two_hops_away(tmp_path: Path) -> None:
    real = "a page from orders with the users of all"
    assert what_it_prints("routing/override.py", tmp_path) == [
        f"without: {real}",
        "signed: a page from orders with Alice's users",
        f"unsigned: {real}",
        f"forged: {real}",
        f"expired: {real}",
    ]


def test_a_fastapi_service_takes_its_clients_as_dependencies(tmp_path: Path) -> None:
    assert what_it_prints("server/fastapi_app.py", tmp_path) == [
        "called: {'item': 42, 'in_time': True}",
        "declared: {'item': 43, 'in_time': True}",
        "too late: 504",
        "replaced: {'fake': '/items/42'}",
    ]


def test_a_server_that_is_told_to_end_serves_on_until_callers_have_heard(tmp_path: Path) -> None:
    assert what_it_prints("server/draining.py", tmp_path) == [
        "entries of two workers: 1",
        "begun behind the signal: done",
        "begun before: done",
        "ended with 0",
    ]


def test_a_flask_service_takes_its_clients_from_the_extension(tmp_path: Path) -> None:
    assert what_it_prints("server/flask_app.py", tmp_path) == [
        "called: {'item': {'path': '/items/42'}, 'left': True}",
        "the catalogue was told of the caller's deadline: True",
        "too late: 504",
        "the catalogue is slow: 504",
        "in production: on",
    ]


def test_a_django_project_is_in_the_mesh_by_one_line(tmp_path: Path) -> None:
    assert what_it_prints("server/django_app.py", tmp_path) == [
        "wsgi: {'item': 42}",
        "asgi: {'item': 43}",
        "the catalogue was told of the caller's deadline: True",
        "too late: 504",
        "the catalogue is slow: 504",
    ]


def test_handlers_that_nobody_waits_for_are_ended(tmp_path: Path) -> None:
    assert what_it_prints("server/cancellation.py", tmp_path) == [
        "a caller that waits 50 ms:",
        "  the handler was cancelled",
        "  and was answered 504, deadline",
        "a GET whose caller goes away:",
        "  the handler was cancelled",
        "a POST whose caller goes away:",
        "  the handler has finished",
        "a GET of what runs in a thread:",
        "  a handler in a thread has ended by itself: disconnect",
        "a caller that has no time left:",
        "  was answered 504, expired",
        "0 in flight",
        "1 cancelled deadline",
        "2 cancelled disconnect",
        "1 ok ",
        "1 refused expired",
    ]


def test_a_service_that_is_asked_for_too_much_serves_the_right_ones(tmp_path: Path) -> None:
    assert what_it_prints("server/admission.py", tmp_path) == [
        "pages, while a batch floods the service: {200: 15}",
        "of the batch most are refused: True",
        "a caller with five requests, beside one with two hundred: {200: 5}",
        "of the greedy one most are refused: True",
        "POSTs to a full instance and a free one: ['added elsewhere', 'added elsewhere']",
        "were refused by the full one first: True",
        "who gave way: ['outranked', 'over_share']",
    ]


def test_a_service_says_whether_it_is_to_get_requests(tmp_path: Path) -> None:
    assert what_it_prints("server/health.py", tmp_path) == [
        "live: 200 live",
        "ready: 200 ready",
        "a check fails: 503 unready ['check: disk raised OSError']",
        "a stranger is not told why: 503 unready",
        "about to leave: 503 unready ['draining']",
        "and alive all the same: 200 live",
    ]


def test_each_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text()

    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and f"]({path.name})" not in index] == [
        "README.md"
    ]


def test_httpx2_goes_through_the_mesh(tmp_path: Path) -> None:
    assert what_it_prints("clients/httpx2_client.py", tmp_path) == [
        "an httpx2 response: True {'id': 42}",
        "attempts: [503, 200]",
        "events: [('message', 'shipped'), ('done', '42')]",
        "an error that the code knows: True 3",
    ]


def test_code_for_requests_goes_through_the_mesh(tmp_path: Path) -> None:
    assert what_it_prints("clients/requests_session.py", tmp_path) == [
        "lines, one by one: ['a line', 'a line', 'a line']",
        "attempts: [503, 200]",
        "cookies are kept: {'seen': 'yes'}",
        "uploaded: 3000 bytes",
        "an error that the code knows: True 3",
    ]


def test_code_for_aiohttp_goes_through_the_mesh(tmp_path: Path) -> None:
    assert what_it_prints("clients/aiohttp_session.py", tmp_path) == [
        "lines, one by one: ['line 0', 'line 1', 'line 2']",
        "attempts: [503, 200]",
        "told how long we wait: True",
        "a timeout that says why: client",
        "an error that the code knows: True gone",
    ]


def test_clients_that_exist_are_attached(tmp_path: Path) -> None:
    assert what_it_prints("clients/attach.py", tmp_path) == [
        f"{name}: ['1', 'not by the mesh']" for name in ("httpx", "httpx2", "requests", "aiohttp")
    ]


def test_a_client_is_a_class(tmp_path: Path) -> None:
    assert what_it_prints("clients/declarative.py", tmp_path) == [
        "<Orders at http://orders/v1 [3 calls]>",
        "one: id=42 total=9.5",
        "all: [1, 2, 3]",
        "made: 201 id=4 total=4.0 in 1 attempt",
        "none: Orders.order: orders answered 404 Not Found to GET /v1/orders/{order_id} / no such order",
        "wrong: (('total', 'Input should be a valid number, unable to parse string as a number'),)",
    ]


def test_a_client_is_generated(tmp_path: Path) -> None:
    *made, answer, refused = what_it_prints("clients/generate.py", tmp_path)
    assert "    def show_pet(self, pet_id: int) -> Pet:" in made
    assert answer == "id=7 name='Tom' kind='cat' born_on=datetime.date(2024, 5, 1)"
    assert refused == "StatusError Pets.show_pet: pets answered 404 Not Found to GET /pets/{pet_id}"
