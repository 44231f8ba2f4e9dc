"""The `semcut` command, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SEMCUT = Path(sys.executable).with_name("semcut")


def semcut(*arguments: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """What the command printed; it must end with this status, and never with a traceback."""
    done = subprocess.run(
        [str(SEMCUT), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done
