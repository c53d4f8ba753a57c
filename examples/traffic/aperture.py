"""Ten clients and forty servers: each client calls a few, and every server gets exactly its share.

The clients would be ten replicas of one workload, each with the same file and ``instance: hostname``. Here they are
balancers made by hand, in one process.
"""

from collections import Counter
from random import Random

from meshlib.balance.aperture import Aperture
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.settings import ApertureSettings

CLIENTS, CALLS = 10, 20_000

servers = [Endpoint(f"10.0.0.{number}", 8080) for number in range(1, 41)]
members = ClusterState("orders", now=0.0).view(servers, 0.0, Random(1)).members
calls: Counter[str] = Counter()
shares: Counter[str] = Counter()

for instance in range(CLIENTS):
    client = Aperture(members, ApertureSettings(instance=instance, of=CLIENTS))
    rng = Random(instance)
    for _ in range(CALLS // CLIENTS):
        picked = client.pick(0.0, rng, None)
        assert picked is not None
        calls[picked.endpoint.address] += 1
    for member, weight in zip(client.members, client.weights, strict=True):
        shares[member.endpoint.address] += weight

print(f"servers that each client calls: {len(client.members)} of {len(servers)}")
print(f"shares of the servers, most to least: {max(shares.values()) / min(shares.values()):.6f}")
print(f"calls, all of them at rest: {min(calls.values())} to {max(calls.values())} of {CALLS // len(servers)}")
