"""`semcut explore`: a page on an index, and its API."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import semcut.connector.explore  # noqa: F401  # says what is not installed
from semcut.connector.cli.app import ERR, PATH

if TYPE_CHECKING:
    from PIL import Image

    from semcut.connector.explore.service import Encode
    from semcut.indexes import Encodings
    from semcut.indexes.index import SemanticIndex


@click.command()
@click.argument("index")
@click.option("--model", type=PATH, help="Where the network is, if it was moved.")
@click.option("--uri", help="INDEX is a collection of this Milvus server, http://host:port, or of a file name.db.")
@click.option("--milvus-token", envvar="MILVUS_TOKEN", help="For that server; better in MILVUS_TOKEN than here.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="An address that others can reach wants a token.")
@click.option("--token", envvar="SEMCUT_TOKEN", help="What others have to know; better in SEMCUT_TOKEN than here.")
@click.option("--name", "names", multiple=True, help="Another name that this machine is known by to them.")
@click.option("--device", default="cpu", show_default=True, help="To encode images on: cpu, cuda, cuda:0.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page.")
def explore(
    index: str, model: Path | None, uri: str | None, milvus_token: str | None, port: int, host: str,
    token: str | None, names: Sequence[str], device: str, browser: bool,
) -> None:  # fmt: skip
    """Look at a stored INDEX in a browser, and search it over HTTP.

    The page shows what a query finds, what was scanned for it and what was pruned. Programs can use the API under it,
    which is described at /docs. With the network that made the index, images can be searched with, too.
    """
    local = host in ("127.0.0.1", "localhost", "::1")
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise click.UsageError("--token has to be a text of ASCII characters")
    if not local and token is None:
        raise click.UsageError(f"--host {host} lets others in: give a --token that they have to know, or SEMCUT_TOKEN")
    import uvicorn

    from semcut.connector.explore.app import create_app
    from semcut.connector.explore.service import ExploreService

    with ExitStack() as stack:
        opened, classes, encode = _opened(stack, index, model, uri, milvus_token, device)
        served = ExploreService(opened, classes, encode)
        app = create_app(served, token=token, hosts=_hosts(host, names))
        try:
            listening = stack.enter_context(_listening(host, port))
        except OSError as error:
            raise click.ClickException(f"{host} port {port} cannot be used ({error.strerror}): try --port 0") from None
        served.warm()
        everywhere = host in ("0.0.0.0", "::")
        name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/"
        how = "Ctrl-C ends it" if token is None else "open it with ?token=TOKEN behind; Ctrl-C ends it"
        ERR.print(f"{len(opened):,} records at {address} ({how})", markup=False, highlight=False)
        if browser and token is None:
            threading.Timer(1, _show, (address,)).start()
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, limit_concurrency=512,
            timeout_keep_alive=5, timeout_graceful_shutdown=5,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _opened(
    stack: ExitStack, index: str, model: Path | None, uri: str | None, milvus_token: str | None, device: str
) -> tuple[SemanticIndex, Sequence[str] | None, Encode | None]:
    """The index, names of its classes, and what makes encodings of images, if the network is there."""
    if uri is not None:
        from semcut.indexes.milvus import MilvusIndex

        opened: SemanticIndex = stack.enter_context(MilvusIndex.open(uri, collection=index, token=milvus_token))
        return opened, *_network(model, None, device)
    from semcut.connector.data.labels import LINK, network_classes
    from semcut.indexes import FaissIndex

    path = Path(index)
    opened = stack.enter_context(FaissIndex.open(path))
    try:
        link = json.loads((path / LINK).read_text())
        made_by = Path(link["model"]), str(link["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return opened, *_network(model, None, device)
    classes, encode = _network(model or made_by[0], made_by[1], device)
    return opened, classes or network_classes(path), encode


def _network(model: Path | None, sha256: str | None, device: str) -> tuple[tuple[str, ...] | None, Encode | None]:
    """Names of its classes, and what makes encodings of images: the network is loaded when it is first needed."""
    if model is None:
        return None, None
    from semcut.connector.data.labels import MODEL

    try:
        content = json.loads((model / MODEL).read_text())
        classes, digest = tuple(map(str, content["architecture"]["classes"])), content["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        ERR.print(f"no network in {model}: the index can be searched with its own records only", markup=False)
        return None, None
    if sha256 not in (None, digest):
        ERR.print(f"the network in {model} did not make this index: searching with records only", markup=False)
        return None, None
    if sha256 is None:
        ERR.print(f"nothing here says which network made the index: {model} is taken for it", markup=False)
    return classes, _Lazily(lambda: _encoder(model, device))


class _Lazily:
    """Encodes images with what is made when the first comes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __call__(self, images: Sequence[Image.Image]) -> Encodings:
        if self._made is None:
            self._made = self._make()
        encodings: Encodings = self._made.encode(images)
        return encodings


def _encoder(model: Path, device: str) -> Any:
    from semcut.connector.models.allocator import keep_freed_memory
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.retrieval.encoder import Encoder

    keep_freed_memory()
    return Encoder(Checkpoint.load(model), device)


def _hosts(host: str, names: Sequence[str]) -> set[str]:
    """Names that requests may use for this server, beside addresses."""
    return {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), *map(str.lower, names)}


def _listening(host: str, port: int) -> socket.socket:
    """A socket to accept connections on. Its protocol is named, or asyncio would not send answers without delay."""
    listening = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(512)
    except BaseException:
        listening.close()
        raise
    return listening


def _show(address: str) -> None:
    """Open a browser, if there is one."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
