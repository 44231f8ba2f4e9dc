"""The layout of an index follows from what a server can do, and finding it out leaves nothing on the server."""

from __future__ import annotations

import pytest

from semcut.indexes import SemcutError
from semcut.indexes.errors import ServerError
from semcut.indexes.milvus.collection import Collection
from semcut.indexes.milvus.connection import RefusedCallError, ServerConnection
from semcut.indexes.milvus.layout import choose_kind


def test_trying_a_layout_leaves_nothing(backend):
    before = set(backend.server.call("list_collections"))
    assert choose_kind(backend.server) == backend.kind
    assert not [one for one in backend.server.call("list_collections") if one.startswith("semcut_trial")]
    assert before <= set(backend.server.call("list_collections"))


def test_a_server_that_reports_no_version_has_the_same_layout(backend, monkeypatch):
    """As the C++ cores of milvus-lite do."""
    call = ServerConnection.call

    def refused(self, name, /, *args, **kwargs):
        if name == "get_server_version":
            raise RefusedCallError("Milvus refused get_server_version: no reason given")
        return call(self, name, *args, **kwargs)

    monkeypatch.setattr(ServerConnection, "call", refused)
    server = ServerConnection(backend.uri)
    assert (server.version, server.release) == ("of unknown version", (0, 0))
    assert choose_kind(server) == backend.kind
    server.close()


def test_a_server_that_is_too_old_is_named(backend, monkeypatch):
    monkeypatch.setattr(backend.server, "release", (2, 2))
    with pytest.raises(SemcutError, match=r"expected 2\.3 or newer: upgrade it"):
        choose_kind(backend.server)


@pytest.mark.parametrize("release", [(2, 3), (2, 4), (2, 6)])
def test_a_refusal_of_what_a_version_can_do_is_an_error(backend, monkeypatch, release):
    """Such as one for a quota, which must not lead to a layout for lesser servers."""
    monkeypatch.setattr(backend.server, "release", release)
    monkeypatch.setattr(backend.server, "embedded", False)

    def refused(self, server):
        raise RefusedCallError("Milvus refused create_collection: too many collections")

    monkeypatch.setattr(Collection, "create", refused)
    with pytest.raises(ServerError, match="too many collections"):
        choose_kind(backend.server)
