"""The `tidegate` command, also found by kubectl as `kubectl tidegate`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line of this process."""
    from tidegate.cli.app import app

    app(prog_name="kubectl tidegate" if Path(sys.argv[0]).name.startswith("kubectl-") else "tidegate")
