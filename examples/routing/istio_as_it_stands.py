"""VirtualServices and DestinationRules as a team has them, without a sidecar: by user, retries, outliers, 404."""

from __future__ import annotations

import tempfile
from pathlib import Path

import meshlib
from meshlib.testing import MeshFixture

DOCUMENTS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: everybody
    match: [{uri: {prefix: /reviews}}]
    route: [{destination: {host: reviews, subset: v1}}]
    retries: {attempts: 2, retryOn: "503,connect-failure"}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 30s, maxEjectionPercent: 100}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""

with tempfile.TemporaryDirectory() as directory:
    (Path(directory) / "reviews.yaml").write_text(DOCUMENTS)
    with MeshFixture(directory) as mesh:
        mesh.serve("reviews", "one", metadata={"version": "v1"}, name="v1-a")
        mesh.serve("reviews", "one", metadata={"version": "v1"}, name="v1-b")
        mesh.serve("reviews", "two", metadata={"version": "v2"}, name="v2")
        client = mesh.client("reviews")

        for user in ("jason", "anna"):
            answer = client.get("/reviews/1", headers={"end-user": user})
            record = meshlib.record(answer)
            assert record is not None
            print(f"{user} gets version {answer.text}, by the route {record.route}")

        mesh.fail_next("reviews", None, status=503, instance="v1-a")
        answers = [client.get("/reviews/1") for _ in range(20)]
        print(f"one endpoint fails, and no caller: {[answer.status_code for answer in answers] == [200] * 20}")
        tried = [call.instance for call in mesh.calls("reviews")]
        print(f"after two errors it is left out: {tried.count('v1-a') <= 4}")

        print(f"what no rule takes is not found: {client.get('/other').status_code}")
        far = "http://reviews.default.svc.cluster.local:9080/reviews/1"
        print(f"the full name is the same service: {client.get(far).text}")
