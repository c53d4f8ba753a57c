"""A client is generated from an OpenAPI document, and used against a service of the test kit.

On the command line: meshlib generate client openapi.yaml --sync --output pets.py
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from meshlib.testing import MeshFixture

document = Path(__file__).with_name("openapi.yaml")

with tempfile.TemporaryDirectory() as directory:
    output = Path(directory) / "pets.py"
    generate: list[str | Path] = [
        sys.executable,
        "-m",
        "meshlib",
        "generate",
        "client",
        document,
        "--sync",
        "--output",
        output,
    ]
    subprocess.run(generate, check=True, capture_output=True)
    print("".join(output.read_text().partition("class Pets(")[1:]), end="")
    sys.path.insert(0, directory)
    pets: Any = importlib.import_module("pets")

with MeshFixture() as mesh:
    mesh.serve("pets", {"id": 7, "name": "Tom", "kind": "cat", "bornOn": "2024-05-01"})
    client = mesh.bind(pets.Pets, "pets")
    print(client.show_pet(7))
    mesh.fail_next("pets", status=404)
    try:
        client.show_pet(8)
    except Exception as error:
        print(type(error).__name__, error)
