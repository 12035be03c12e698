"""What every benchmark keeps of a run beside its figures, and where."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, str]:
    """The command, the date and the machine in words."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def portable(arguments: list[str]) -> list[str]:
    """Command-line arguments with folders by name alone."""
    return [Path(argument).name if os.sep in argument else argument for argument in arguments]
