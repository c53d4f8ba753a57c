"""A change to a VirtualService, reviewed before it is merged: is it right, what will be different, who is affected?

What a pull request's checks would run as `meshlib check`, `meshlib diff` and `meshlib explain`. Needs the extra `cli`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from meshlib.cli.commands import meshlib

BEFORE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders}
spec:
  hosts: [orders]
  http:
  - name: testers
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: orders, subset: v2}}]
  - name: everybody
    timeout: 2s
    route:
    - {destination: {host: orders, subset: v1}, weight: 95}
    - {destination: {host: orders, subset: v2}, weight: 5}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders}
spec:
  host: orders
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""

AFTER = (
    BEFORE.replace("weight: 95", "weight: 90")
    .replace("weight: 5", "weight: 10")
    .replace("timeout: 2s", "timeout: 1s")
    .replace("    match: [{headers:", "    corsPolicy: {allowOrigins: [{exact: x}]}\n    match: [{headers:")
)


def run(*arguments: str) -> None:
    print(f"$ meshlib {' '.join(arguments)}")
    try:
        meshlib.main(arguments, prog_name="meshlib", standalone_mode=False)
    except SystemExit as ended:
        print(f"exit {ended.code}")


with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    Path("before.yaml").write_text(BEFORE)
    Path("after.yaml").write_text(AFTER)
    run("check", "after.yaml")
    run("diff", "before.yaml", "after.yaml")
    run("explain", "GET", "http://orders/", "-H", "end-user: jason", "--config", "after.yaml")
