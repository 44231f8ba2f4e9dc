"""The C++ core of Milvus 2.4 or 2.5 as a server for tests, from the package milvus-lite 2.x, on a free port.

It stores several vectors in a collection, unlike the server of the package `milvus`. It has no users, no databases and
no partition key, it does not report its version, and its filters know no `not` and no escapes such as \\n in texts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.indexes.milvus.server_process import free_ports

_START = 60  # seconds


def has_core() -> bool:
    """Return whether the package milvus-lite is one whose core can be served."""
    return version("milvus-lite").startswith("2.")


def unless_core(reason: str) -> pytest.MarkDecorator:
    """Return the mark of a test that the core cannot pass."""
    return pytest.mark.skipif(has_core(), reason=f"the core of milvus-lite {reason}")


class CoreProcess:
    """A core that serves on loopback, with the methods of `ServerProcess` that tests of any server use.

    Args:
        directory: the directory for its data.
        binaries: not used: the core runs where it is installed.

    Attributes:
        directory: as given.
    """

    def __init__(self, directory: Path, *, binaries: Path | None = None) -> None:
        self.directory, (self._port,) = directory, free_ports(1)
        directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the core, and wait until it accepts connections."""
        found = importlib.util.find_spec("milvus_lite")  # not imported: that needs a setuptools of its time
        assert found is not None
        assert found.submodule_search_locations is not None
        folder = Path(found.submodule_search_locations[0]) / "lib"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [folder / "milvus", self.directory / "core.db", f"127.0.0.1:{self._port}", "ERROR"],
                cwd=self.directory, env={**os.environ, "LD_LIBRARY_PATH": str(folder)}, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + _START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the core did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as one:
            one.settimeout(1)
            return one.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        """Kill the core (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def delete(self) -> None:
        """Kill the core and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
