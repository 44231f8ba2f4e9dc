"""Call the `semcut` command as a user does, but in the process of the tests, since starting a process takes seconds.

A test of signals, of a terminal or of the end of a process starts the program `SEMCUT` instead.
"""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from semcut.connector.cli.app import main

SEMCUT = Path(sys.executable).with_name("semcut")


def semcut(*arguments: object, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that must end with this exit status (None: any) without a traceback; return what it printed."""
    command = ["semcut", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", command)
        patch.setattr(sys.modules["__main__"], "__package__", None)  # or click would name the program after the package
        patch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as end:
            main()
    done = subprocess.CompletedProcess(command, end.value.code or 0, out.getvalue(), err.getvalue())
    assert status in (None, done.returncode), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done
