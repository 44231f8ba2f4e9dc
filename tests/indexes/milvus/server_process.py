"""A Milvus server process for tests, from the package `milvus` of PyPI, in a directory and on free ports.

Milvus 2.3 binds its ports on every interface, even if its configuration names an address; only its etcd uses the
address that is configured.
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
"""The token of the first user of a server with authorization."""

BINARIES = "bin"
_PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_START = 120  # seconds


class ServerProcess:
    """A server process. Data, ports and uri stay the same when it is killed and started again.

    Args:
        directory: the directory for data, logs and binaries (250 MB).
        authorization: whether clients need a token, see `TOKEN`.
        binaries: the directory of another server, whose binaries this server uses too.

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
        # By default etcd uses its standard ports, and fails if another server uses them.
        etcd, peers = f"http://127.0.0.1:{self._ports['etcd_port']}", f"http://127.0.0.1:{peer}"
        (directory / "etcd.yaml").write_text(
            f"name: default\nlisten-client-urls: {etcd}\nadvertise-client-urls: {etcd}\nlisten-peer-urls: {peers}\n"
            f"initial-advertise-peer-urls: {peers}\ninitial-cluster: default={peers}\n"
        )
        self._server: Any = None

    @property
    def uri(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self._ports['proxy_port']}"

    @property
    def pid(self) -> int:
        """The id of the process."""
        return int(self._server.server_proc.pid)

    def start(self) -> None:
        """Start the server, and wait until it is healthy."""
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
        """Kill the server (SIGKILL); after SIGTERM it would run for more than a minute."""
        server, self._server = self._server, None
        if server is not None and server.server_proc is not None:
            server.server_proc.kill()
            server.server_proc.wait()
            (Path("/tmp/milvus") / f"server_id_{server.server_proc.pid}").unlink(missing_ok=True)
            server.stop()  # closes its files

    def delete(self) -> None:
        """Kill the server and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def hanging(self):
        """Stop the process in the block (SIGSTOP), so that it does not answer, then continue it (SIGCONT)."""
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
    """Return a socket bound to a port, or None if the port is in use; a killed server no longer uses its ports."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        one.close()
        return None
    return one


def free_ports(count: int) -> list[int]:
    """Return unused ports below those that the system gives to clients, so that a restarted server can bind them."""
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
