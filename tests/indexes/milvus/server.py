"""A real Milvus server for tests, from the package `milvus` of PyPI: in a directory, on free ports, ended by its pid.

Milvus 2.3 binds its ports on every interface, whatever the addresses in its configuration; only its etcd can be told.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

TOKEN = "root:Milvus"
"""What the first user of a server with authorization has to give."""

BINARIES = "bin"
_PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_START = 120  # seconds


class RealServer:
    """A server process. Killing it and starting it again keeps its data, its port and its uri.

    Args:
        directory: for its data, logs and binaries (250 MB).
        authorization: whether clients need a token, see `TOKEN`.
        binaries: the directory of another server, to share its binaries.

    Attributes:
        directory: as given.
    """

    def __init__(self, directory: Path, *, authorization: bool = False, binaries: Path | None = None) -> None:
        milvus = pytest.importorskip(
            "milvus", reason="the package milvus (a Milvus server) is not installed: `make test-milvus` installs it"
        )
        self._package, self.directory, self._authorization = milvus, directory, authorization
        directory.mkdir(parents=True, exist_ok=True)
        if binaries is not None:
            (directory / BINARIES).symlink_to(binaries / BINARIES)
        names = [name for name in milvus.MilvusServerConfig().configurable_items if name.endswith("_port")]
        *ports, self._health, peer = free_ports(len(names) + 2)
        self._ports = dict(zip(names, ports, strict=True))
        # Without this it takes the usual ports of etcd, and fails where another server has them.
        etcd, peers = f"http://127.0.0.1:{self._ports['etcd_port']}", f"http://127.0.0.1:{peer}"
        (directory / "etcd.yaml").write_text(
            f"name: default\nlisten-client-urls: {etcd}\nadvertise-client-urls: {etcd}\nlisten-peer-urls: {peers}\n"
            f"initial-advertise-peer-urls: {peers}\ninitial-cluster: default={peers}\n"
        )
        self._server: Any = None

    @property
    def uri(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._ports['proxy_port']}"

    @property
    def pid(self) -> int:
        """Of its process."""
        return int(self._server.server_proc.pid)

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        config = self._package.MilvusServerConfig()
        config.try_bind_port = _bound
        config.set("authorization_enabled", self._authorization)
        for part in _PARTS:
            config.set(f"{part}.ip", "127.0.0.1")
        self._server = self._package.MilvusServer(
            config, wait_for_started=False, data_dir=str(self.directory), **self._ports
        )
        self._server.webservice_port = self._health
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ETCD_CONFIG_PATH", str(self.directory / "etcd.yaml"))
            self._server.start()
        end = time.monotonic() + _START
        while not self._healthy():
            if self._server.server_proc.poll() is not None or time.monotonic() > end:
                log = (self.directory / "logs" / "milvus-stderr.log").read_text()[-3000:]
                self.kill()
                raise RuntimeError(f"the Milvus server did not start:\n{log}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once (SIGKILL): on SIGTERM it goes on for more than a minute."""
        server, self._server = self._server, None
        if server is not None and server.server_proc is not None:
            server.server_proc.kill()
            server.server_proc.wait()
            (Path("/tmp/milvus") / f"server_id_{server.server_proc.pid}").unlink(missing_ok=True)
            server.stop()  # closes its files

    def delete(self) -> None:
        """End it and delete all that it has stored."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def hanging(self):
        """It exists and does not answer (SIGSTOP), then goes on (SIGCONT)."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as answer:
                return b"OK" in answer.read()
        except OSError:
            return False


def _bound(port: int) -> socket.socket | None:
    """A socket at a port that a server can have, also one that it had until now."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        one.close()
        return None
    return one


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, below those that clients are given: a server can come back to them."""
    found: list[int] = []
    for port in random.sample(range(15_000, 30_000), 1000):
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("there are no free ports")
