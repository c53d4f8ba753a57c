"""A service-router, a splitter and a resolver as Consul has them: an admin path, a canary by metadata, failover."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import meshlib
from meshlib.testing import MeshFixture

ENTRIES = {
    "router.json": {
        "Kind": "service-router",
        "Name": "web",
        "Routes": [
            {
                "Match": {"HTTP": {"PathPrefix": "/admin/"}},
                "Destination": {"Service": "admin", "PrefixRewrite": "/", "RequestTimeout": "2s"},
            },
            {
                "Match": {"HTTP": {"Header": [{"Name": "x-tester", "Present": True}]}},
                "Destination": {"ServiceSubset": "beta"},
            },
        ],
    },
    "splitter.json": {
        "Kind": "service-splitter",
        "Name": "web",
        "Splits": [{"Weight": 90, "ServiceSubset": "stable"}, {"Weight": 10, "ServiceSubset": "canary"}],
    },
    "resolver.json": {
        "Kind": "service-resolver",
        "Name": "web",
        "Subsets": {
            "stable": {"Filter": "Service.Meta.version == v1"},
            "canary": {"Filter": "Service.Meta.version != v1 and canary in Service.Tags"},
            "beta": {"Filter": "beta in Service.Tags"},
        },
        "Failover": {"beta": {"ServiceSubset": "canary"}},
    },
}

with tempfile.TemporaryDirectory() as directory:
    for name, entry in ENTRIES.items():
        (Path(directory) / name).write_text(json.dumps(entry))
    with MeshFixture(directory) as mesh:
        mesh.serve("web", "stable", metadata={"version": "v1"}, name="web-1")
        mesh.serve("web", "canary", metadata={"version": "v2", "tag.canary": "true"}, name="web-2")
        mesh.serve("admin", "admin")
        client = mesh.client("web")

        answer = client.get("/admin/users")
        print(f"/admin/users is answered by {answer.text}, who saw {mesh.calls('admin')[0].path}")
        answers = [client.get("/").text for _ in range(300)]
        print(f"about a tenth of the others get the canary: {10 <= answers.count('canary') <= 60}")
        answer = client.get("/", headers={"x-tester": ""})
        record = meshlib.record(answer)
        assert record is not None
        print(f"nobody serves the beta yet, so its testers get the {answer.text}, by {record.route}")
        mesh.serve("web", "beta", metadata={"version": "v3", "tag.beta": "true"}, name="web-3")
        print(f"and now they get the {client.get('/', headers={'x-tester': ''}).text}")
