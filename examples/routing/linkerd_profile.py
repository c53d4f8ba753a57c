"""A ServiceProfile as it stands: which calls are retried, for how long, and a tenth that goes to the next version."""

from __future__ import annotations

import tempfile
from pathlib import Path

import meshlib
from meshlib.testing import MeshFixture

DOCUMENTS = """
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: books.default.svc.cluster.local, namespace: default}
spec:
  routes:
  - name: GET /books/{id}
    condition: {method: GET, pathRegex: "/books/[^/]*"}
    isRetryable: true
    timeout: 2s
  - name: POST /books
    condition: {method: POST, pathRegex: "/books"}
  dstOverrides:
  - {authority: "books.default.svc.cluster.local", weight: 900m}
  - {authority: "books-next.default.svc.cluster.local", weight: 100m}
"""

with tempfile.TemporaryDirectory() as directory:
    (Path(directory) / "books.yaml").write_text(DOCUMENTS)
    with MeshFixture(directory) as mesh:
        mesh.serve("books", "now")
        mesh.serve("books-next", "next")
        client = mesh.client("books")

        answers = [client.get("/books/1").text for _ in range(300)]
        print(f"about a tenth of the calls go to the next version: {10 <= answers.count('next') <= 60}")

        for service in ("books", "books-next"):
            mesh.fail_next(service, 1, status=503)
        answer = client.get("/books/1")
        record = meshlib.record(answer)
        assert record is not None
        print(f"{record.route}: {answer.status_code}, retried: {len(record.attempts) > 1}")

        for service in ("books", "books-next"):
            mesh.fail_next(service, 1, status=503)
        answer = client.post("/books")
        record = meshlib.record(answer)
        assert record is not None
        print(f"{record.route}: {answer.status_code}, retried: {len(record.attempts) > 1}")

        answer = client.get("/other")
        record = meshlib.record(answer)
        assert record is not None
        print(f"what no route takes goes by {record.route}")
