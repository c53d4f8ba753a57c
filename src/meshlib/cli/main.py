"""The entry point of the command ``meshlib``; the commands themselves are in `commands`.

Apart from them because they need what the extra ``cli`` brings, and somebody without it should read one clear line.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main() -> None:
    """Run the command with the arguments of this process, and exit with its code."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f'the command `meshlib` needs {" and ".join(missing)}: pip install "meshlib-http[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    from meshlib.cli.commands import meshlib

    meshlib(prog_name="meshlib")
