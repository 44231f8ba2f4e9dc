"""`semcut explore`: serves a page that shows an index, and the HTTP API that the page uses."""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

import semcut.connector.explore  # noqa: F401  # reports which packages are missing
from semcut.connector.cli.options import PATH, SOURCE, device_option, moved_model_option
from semcut.connector.cli.terminal import print_message
from semcut.connector.daemon_threads import leave

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104  # compared with what the user gave
_SECONDS_UNTIL_BROWSER = 1


@click.command()
@click.argument("index", type=SOURCE)
@moved_model_option
@click.option("--uri", help="Milvus server (http://host:port) or file (name.db) where INDEX is a collection.")
@click.option("--images", type=PATH, help="Folder of the images, to which the uris of the collection are relative.")
@click.option("--milvus-token", envvar="MILVUS_TOKEN", help="Token for the Milvus server. Safer: set MILVUS_TOKEN.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0 for any free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. If other machines can connect to the address, --token is required.",
)
@click.option("--token", envvar="SEMCUT_TOKEN", help="Secret that requests must send. Safer: set SEMCUT_TOKEN.")
@click.option(
    "--name", "names", multiple=True,
    help="Another host name of this machine that requests may use. Can be given several times.",
)  # fmt: skip
@device_option
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def explore(
    index: str, model: Path | None, uri: str | None, images: Path | None, milvus_token: str | None, port: int,
    host: str, token: str | None, names: Sequence[str], device: str, browser: bool,
) -> None:  # fmt: skip
    """Look at a stored INDEX in a browser, and search it over HTTP.

    The page shows what a query finds, and which partitions were scanned or pruned for the query. Programs can use the
    HTTP API, which is described at /docs. If the network that made the index is found, new images can be queries too.
    """
    _check_access(host, token)
    if images is not None and uri is None:
        raise click.UsageError("--images is for a collection: an index knows its folder, see `semcut relocate`")
    from semcut.connector.explore.connection_guard import create_server
    from semcut.connector.explore.followed_index import FollowedIndex
    from semcut.connector.explore.http_api import create_app
    from semcut.connector.explore.open_index import open_collection, open_stored
    from semcut.connector.explore.service import ExploreService, ServiceSource

    with ExitStack() as stack:
        source: ServiceSource
        if uri is not None:
            opened = open_collection(uri, index, milvus_token, model, device, warn=print_message)
            stack.enter_context(opened.index)
            root = None if images is None else str(images.absolute())
            source = ExploreService(
                opened.index, opened.class_names, opened.encode, defaults=opened.defaults, root=root
            )
        else:
            opened = open_stored(Path(index), model, device, warn=print_message)
            source = stack.enter_context(FollowedIndex(Path(index), opened))
        server_app = create_app(source, token=token, hosts=_host_names(host, names))
        try:
            listening = stack.enter_context(_listen(host, port))
        except OSError as error:
            raise click.ClickException(f"{host} port {port} cannot be used ({error.strerror}): try --port 0") from None
        source.use(lambda service: service.warm_up())
        address = _address(host, listening.getsockname()[1])
        hint = "Ctrl-C stops the server" if token is None else "append ?token=TOKEN; Ctrl-C stops the server"
        print_message(f"{len(opened.index):,} records at {address} ({hint})")
        if browser and token is None:
            threading.Timer(_SECONDS_UNTIL_BROWSER, _open_browser, (address,)).start()
        with contextlib.suppress(KeyboardInterrupt):
            create_server(server_app).run(sockets=[listening])
    leave(0)


def _check_access(host: str, token: str | None) -> None:
    """Raise an error for a token that cannot be sent in a header, or if other machines can connect without a token."""
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise click.UsageError("--token must be printable ASCII characters")
    if host not in _THIS_MACHINE and token is None:
        raise click.UsageError(
            f"--host {host} accepts requests from other machines: give a --token that requests must send, or set "
            "SEMCUT_TOKEN"
        )


def _host_names(host: str, names: Sequence[str]) -> set[str]:
    """Return the host names that requests may have in their Host header; IP addresses need not be listed."""
    return {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), *map(str.lower, names)}


def _address(host: str, port: int) -> str:
    """Return the URL of the page; if the server listens on all interfaces, with the host name of this machine."""
    name = socket.gethostname() if host in _ALL_INTERFACES else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def _listen(host: str, port: int) -> socket.socket:
    """Create a socket that accepts connections.

    The socket is created with the protocol TCP, because only then does asyncio send responses without delay
    (TCP_NODELAY).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


def _open_browser(address: str) -> None:
    """Open the page in a browser, if there is one."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
