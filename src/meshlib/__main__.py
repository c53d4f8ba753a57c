"""``python -m meshlib`` is the command ``meshlib``."""

from __future__ import annotations

from meshlib.cli.main import main

if __name__ == "__main__":
    main()
