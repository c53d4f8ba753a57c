"""A canary that a tenth of the users see, and always the same tenth: what moves when it becomes a fifth.

Two versions of a service, told apart by a header that the route's backends set on their responses.
"""

from __future__ import annotations

from collections import Counter

from meshlib.testing import MeshFixture

USERS = [f"user-{number}" for number in range(1000)]


def versions(weight: int) -> dict[str, str]:
    """Which version each user sees while the canary has so much weight."""
    backends = [
        {"service": "orders-next", "weight": weight, "headers": {"response": {"set": {"x-version": "next"}}}},
        {"weight": 100 - weight, "headers": {"response": {"set": {"x-version": "now"}}}},
    ]
    services = {"orders": {"routes": [{"backends": backends, "sticky": {"header": "x-user"}}]}}
    with MeshFixture(services=services) as mesh:
        mesh.serve("orders", "now")
        mesh.serve("orders-next", "next")
        client = mesh.client("orders")
        return {user: client.get("/", headers={"x-user": user}).headers["x-version"] for user in USERS}


tenth, again, fifth = versions(10), versions(10), versions(20)
print(f"the same users see the canary after a restart: {tenth == again}")
print(f"a tenth of them: {0.08 < Counter(tenth.values())['next'] / len(USERS) < 0.12}")
moved = Counter((tenth[user], fifth[user]) for user in USERS if tenth[user] != fifth[user])
print(f"with twice the weight users move only to the canary: {[*moved] == [('now', 'next')]}")
print(f"and that is another tenth: {0.08 < moved.total() / len(USERS) < 0.12}")
