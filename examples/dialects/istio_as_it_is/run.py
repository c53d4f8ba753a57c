"""A directory of Istio's and Kubernetes' documents as a cluster has them: checked, explained, and called, as it is.

Nothing in `mesh/` was written for this library. The pods of its EndpointSlices live in this process here. Needs the
extra `cli`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import meshlib
from meshlib.cli.commands import meshlib as command
from meshlib.testing import MeshFixture, ReceivedRequest

JASON = {"end-user": "jason"}


def version_of(request: ReceivedRequest) -> str:
    return {"reviews-0": "v1", "reviews-1": "v2", "reviews-2": "v3"}[request.instance]


def meshlib_command(*arguments: str) -> None:
    print(f"$ meshlib {' '.join(arguments)}")
    try:
        command.main(arguments, prog_name="meshlib", standalone_mode=False)
    except SystemExit as ended:
        print(f"exit {ended.code}")


os.chdir(Path(__file__).parent)
meshlib_command("check", "--strict", "mesh/")

with MeshFixture("mesh/") as mesh:
    mesh.serve("reviews", version_of)  # one for each endpoint in the documents
    mesh.serve("ratings", "5 stars")
    mesh.serve("covers.example.com", "a cover")

    print("\n".join(str(mesh.plan("GET", "http://reviews:9080/reviews/1", headers=JASON)).splitlines()[:3]))
    page = mesh.client()
    answers = Counter(page.get("http://reviews:9080/reviews/1").text for _ in range(500))
    print(f"everybody: v1 and v3: {answers.keys() == {'v1', 'v3'}}, v3 for about a fifth: {60 < answers['v3'] < 140}")
    print(f"jason: {page.get('http://reviews:9080/reviews/1', headers=JASON).text}")

    aborted = page.get("http://ratings:9080/ratings/1", headers=JASON)
    record = meshlib.record(aborted)
    assert record is not None
    print(f"ratings for jason: {aborted.status_code} by {record.route}, {record.fault}")
    mesh.fail_next("ratings", None, status=503, instance="ratings-0")
    found = Counter(page.get("http://ratings:9080/ratings/1").text for _ in range(20))
    tried = sum(call.instance == "ratings-0" for call in mesh.calls("ratings"))
    print(f"one of two is broken: {dict(found)}, which was tried {tried} times")

    print(f"the host that is registered: {page.get('http://covers.example.com/1').text}")
    try:
        page.get("http://api.example.com/1")
    except meshlib.EgressRefused as error:
        print(f"another one: {type(error).__name__}")
