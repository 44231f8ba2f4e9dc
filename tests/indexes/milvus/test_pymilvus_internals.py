"""The undocumented parts of pymilvus and milvus-lite that `pymilvus_internals` uses exist in the installed versions."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pymilvus
import pytest
from pymilvus.client import connection_manager, constants, search_result, types
from pymilvus.grpc_gen import schema_pb2

from semcut.indexes.milvus import pymilvus_internals as internals

SOURCES = Path(pymilvus.__file__).parent
UPGRADE = (
    f"pymilvus {version('pymilvus')} and milvus-lite {version('milvus-lite')} are installed; tested are "
    f"{internals.TESTED_VERSIONS}: adapt pymilvus_internals, run the tests with a server as well, and add the versions"
)


def source_of(name: str) -> str:
    """Return the source of a module of pymilvus, or of all modules of a package, without loading it."""
    path = SOURCES / name
    files = path.rglob("*.py") if path.is_dir() else [path]
    return "\n".join(file.read_text() for file in files)


def test_the_tested_versions_are_named():
    assert set(internals.TESTED_VERSIONS) == {"pymilvus", "milvus-lite"}
    for name in internals.TESTED_VERSIONS:
        assert version(name)
        assert name in UPGRADE


def test_the_address_is_read_while_pymilvus_loads():
    assert hasattr(pymilvus.settings.Config, "MILVUS_URI"), UPGRADE


def test_a_client_can_have_a_connection_of_its_own():
    parameters = inspect.signature(connection_manager.ConnectionManager.get_or_create).parameters
    assert "dedicated" in parameters, UPGRADE
    assert 'kwargs.pop("dedicated", False)' in inspect.getsource(pymilvus.MilvusClient.__init__), UPGRADE


def test_the_options_of_a_page_are_those_of_a_query_iterator():
    assert set(internals.PAGE_OPTIONS) == {constants.ITERATOR_FIELD, constants.REDUCE_STOP_FOR_BEST}, UPGRADE
    prepare = source_of("client/prepare.py")
    assert "kwargs.get(ITERATOR_FIELD)" in prepare, UPGRADE
    assert "kwargs.get(REDUCE_STOP_FOR_BEST" in prepare, UPGRADE


def field(name: str, kind: types.DataType, vectors: schema_pb2.VectorField) -> schema_pb2.FieldData:
    return schema_pb2.FieldData(type=kind, field_name=name, vectors=vectors)


def test_vectors_are_read_from_the_rows_of_a_query_without_decoding_them():
    floats = np.arange(6, dtype=np.float32)
    lazy = [
        field("f", types.DataType.FLOAT_VECTOR,
              schema_pb2.VectorField(dim=2, float_vector=schema_pb2.FloatArray(data=floats))),
        field("b", types.DataType.BINARY_VECTOR, schema_pb2.VectorField(dim=16, binary_vector=bytes(range(6)))),
    ]  # fmt: skip
    rows = types.HybridExtraList(
        lazy, [{"id": 5 + n, "low": low, "uri": uri} for n, (low, uri) in enumerate([(0.5, "a"), (1, ""), (0, "b")])]
    )
    assert internals.int_column(rows, "id").tolist() == [5, 6, 7], UPGRADE
    assert internals.float_column(rows, "low").tolist() == [0.5, 1, 0], UPGRADE
    assert internals.text_column(rows, "uri") == ["a", "", "b"], UPGRADE
    assert not any(rows._materialized_bitmap), UPGRADE
    np.testing.assert_array_equal(internals.float_vectors(rows, "f", 2), floats.reshape(3, 2), strict=True)
    np.testing.assert_array_equal(
        internals.binary_vectors(rows, "b", 2), np.arange(6, dtype=np.uint8).reshape(3, 2), strict=True
    )
    assert not any(rows._materialized_bitmap), UPGRADE


@pytest.mark.parametrize("count", [0, 1, 31, 32, 4095, 4096, 600_000])
def test_the_values_of_a_float_array_are_read_from_its_serialised_bytes(count):
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    array = schema_pb2.FloatArray(data=values)
    np.testing.assert_array_equal(internals._float_array(array), values, strict=True)


def test_hits_have_their_primary_keys_and_fields_apart():
    rows = schema_pb2.FieldData(
        type=types.DataType.INT64, field_name="row",
        scalars=schema_pb2.ScalarField(long_data=schema_pb2.LongArray(data=[10, 20, 30])),
    )  # fmt: skip
    hits = search_result.HybridHits(0, 3, [1, 2, 3], [0.0, 1.0, 2.0], [rows], ["row"], [], "id")
    assert internals.hit_keys(hits, "id", primary=True).tolist() == [1, 2, 3], UPGRADE
    assert internals.hit_keys(hits, "row", primary=False).tolist() == [10, 20, 30], UPGRADE
    assert not hits.has_materialized, UPGRADE


@pytest.mark.parametrize("text", [internals.FILE_IN_USE_TEXT, internals.NO_COLLECTION_TEXT, *internals.NO_ANSWER_TEXTS])
def test_pymilvus_raises_errors_with_these_texts(text):
    assert text in source_of("client") + source_of("decorators.py"), UPGRADE


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Received message larger than max (5 vs. 4)", "too large"),
        ("query results exceed the limit size", "too large"),
        ("Open local milvus failed", "file in use"),
        ("collection not found[collection=x]", "no collection"),
        ("can't find collection[x]", "no collection"),
        ("auth check failure, please check api key", "token refused"),
        ("UNAUTHENTICATED", "token refused"),
        ("Retry timeout: 5.0s", "no answer"),
        ("something else", "refused"),
    ],
)
def test_kinds_of_failures(text, kind):
    error = internals.MilvusException(message=text)
    assert internals.failure_kind(error) == kind
    assert internals.failure_text(error) == text


def test_the_text_of_a_failure_hides_secrets_and_fits_on_a_line():
    error = internals.MilvusException(message="a\nsecret  b" + "x" * 1000)
    text = internals.failure_text(error, hide=["secret"])
    assert text.startswith("a ... bx")
    assert len(text) == 300


def test_an_error_says_whether_the_call_may_be_repeated():
    assert internals.is_transient(internals.MilvusException(code=8)), UPGRADE
    assert internals.is_transient(internals.MilvusException(retriable=True)), UPGRADE
    assert not internals.is_transient(internals.MilvusException(code=1100)), UPGRADE
    assert internals.is_not_loaded(internals.MilvusException(code=101)), UPGRADE


def test_these_loggers_exist_and_are_silenced(caplog):
    used = source_of("")
    for name in internals.LOGGERS:
        package, _, path = name.partition(".")
        if package == "pymilvus" and path:
            file = SOURCES / path.replace(".", "/")
            assert file.is_dir() or "getLogger(__name__)" in file.with_suffix(".py").read_text(), UPGRADE
        logger = logging.getLogger(name)
        with internals.silenced():
            logger.error("hidden")
        logger.error("shown")
    assert "getLogger(__name__)" in used
    assert "hidden" not in [record.getMessage() for record in caplog.records]


def test_milvus_lite_can_stop_the_server_of_a_file():
    from milvus_lite.server_manager import server_manager_instance

    assert list(inspect.signature(server_manager_instance.release_server).parameters) == ["path"], UPGRADE
    assert "server_manager_instance" in source_of("client/connection_manager.py"), UPGRADE


def test_loading_leaves_the_address_in_the_environment_and_needs_no_valid_one():
    script = """
import json, os, sys
import semcut.indexes.milvus
before = "pymilvus" in sys.modules
from semcut.indexes.milvus import MilvusIndex
from pymilvus.settings import Config
print(json.dumps([before, os.environ["MILVUS_URI"], Config.MILVUS_URI]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "MILVUS_URI": "some file.db"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [False, "some file.db", ""]
