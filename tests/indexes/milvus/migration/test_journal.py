"""The journal of a migration, its checksums, and the comparison of configurations."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidParameterError,
    StorageError,
)
from semcut.indexes.migration.comparison import check_same_config
from semcut.indexes.migration.copy import Migration
from semcut.indexes.migration.journal import Journal, SourceChangedError, checksum
from semcut.indexes.milvus.schema import to_keys
from tests.indexes.milvus.migration.command import CONFIG, records


def test_the_journal(tmp_path):
    """A line that a crash cut off is ignored; a file that cannot be read or written is an error."""
    batch = records(30)
    order = np.argsort(batch.ids)
    journal = Journal(tmp_path / "journal")
    assert (journal.header, journal.copied, journal.last_id) == (None, 0, -1)
    journal.begin({"source": "a", "target": "b"})
    journal.append(batch[order[:10]])
    journal.append(batch[order[10:]])
    whole = (tmp_path / "journal").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "journal").write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        read = Journal(tmp_path / "journal")
        assert read.copied == (0, 0, 10, 30)[lines]
        assert (read.header is None) == (lines == 0)
        read.begin({}) if lines == 0 else read.append(batch[order[:10]])
        assert Journal(tmp_path / "journal").copied == (0, 10, 20, 40)[lines]
    (tmp_path / "journal").write_text("nothing\n")
    with pytest.raises(StorageError, match="is no journal"):
        Journal(tmp_path / "journal")
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "journal").begin({})
    with pytest.raises(StorageError, match="cannot be read"):
        Journal(tmp_path)


HEADER = b'{"format": 1, "source": "a", "target": "b"}\n'
LINE = b'{"last":9,"records":1,"crc":1}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 60_000 + b"\n",
        b'"' + b"x" * 70_000 + b'"\n',
        HEADER + b"[1, 2, 3]\n",
        HEADER + b'{"last": 9, "records": 1}\n',
        HEADER + b'{"last": 9, "records": 1, "crc": 1, "more": "' + b"x" * 300 + b'"}\n',
        HEADER + b"x" * 300,
        *(HEADER + LINE.replace(b":1,", b":%s," % value) for value in (b"-1", b"1e3", b'"1"', b"true", b"9" * 30)),
        *(HEADER + LINE.replace(b"9", value) for value in (b"-1", b"9223372036854775808", b"NaN")),
        HEADER.replace(b"1", b"2"),
        b"\xff\n",
        b'{"format": "my settings", "photos": ["a.jpg"]}',
        b'{"format": 1, "photos": ["a.jpg"]}',
        b'{"format": 2, "source": "a", "tar',
    ],
)
def test_what_is_no_journal_is_an_error(tmp_path, content):
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(StorageError, match="is no journal"):
        Journal(tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == content


def test_a_journal_takes_less_memory_than_its_file(tmp_path):
    lines = 10_000
    (tmp_path / "journal").write_bytes(HEADER + LINE * lines)
    tracemalloc.start()
    try:
        journal = Journal(tmp_path / "journal")
        assert tracemalloc.get_traced_memory()[1] < len(LINE) * lines + (1 << 19)
    finally:
        tracemalloc.stop()
    assert (journal.copied, journal.last_id, len(journal.last_ids)) == (lines, 9, lines)


def test_the_checksum_covers_everything():
    """It changes with any value, id and uri; None and an empty uri differ too."""
    batch = records(4)
    columns = dict(vars(batch))
    known = {checksum(batch)}
    uris = list(batch.uris)
    changed = [
        {"ids": to_keys(batch.ids)[::-1].clip(0)},
        {"codes": batch.codes ^ np.eye(4, 8, dtype=np.uint8)},
        {"probabilities": batch.probabilities[::-1]},
        {"features": np.nextafter(batch.features, np.float32(1))},
        {"uris": [*uris[:3], "x"]},
        {"uris": ["", *uris[1:]]},
        {"uris": [uris[1], uris[0], *uris[2:]]},
        {"uris": None},
        {"attributes": None},
        *({"attributes": {**batch.attributes, name: [None] * 4}} for name in batch.attributes),
        {"attributes": {**batch.attributes, "stars": [number or 0 for number in range(4)]}},
    ]
    known |= {checksum(Encodings(**{**columns, "ids": keys})) for keys in (list("abcd"), list("abdc"))}
    changed += [{"ids": list("abce")}, {"ids": ["a", "b", "c", 'd"']}]
    for change in changed:
        known.add(checksum(Encodings(**{**columns, **change})))
    assert len(known) == 3 + len(changed)


def test_configurations_that_differ():
    """Every setting must be the same, and the message names those that differ."""
    check_same_config(CONFIG, CONFIG, "it")
    for change, said in (
        ({"classes": 7, "prior": None}, "classes 7 instead of 6"),
        ({"bits": 32}, "bits 32 instead of 64"),
        ({"dim": 9}, "dim 9 instead of 8"),
        ({"groups": 2}, "groups 2 instead of 6"),
        ({"prior": None}, "another prior"),
        ({"attributes": {"price": "int"}}, "attributes {'price': 'int'} instead of "),
    ):
        with pytest.raises(InvalidParameterError, match=said):
            check_same_config(CONFIG, IndexConfig(**{**CONFIG.model_dump(), **change}), "it")


def test_a_journal_of_another_set_of_attributes_is_that_of_another_source(tmp_path):
    """A journal of an index without attributes names none, as those of earlier versions."""
    configs = [IndexConfig(classes=6, bits=64, dim=8, attributes=kinds) for kinds in ({}, {"a": "int"}, {"a": "bool"})]
    for config in configs:
        source, target = (FaissIndex.create(None, config, engine="faiss") for _ in range(2))
        path = tmp_path / f"journal {configs.index(config)}"
        Migration(source, target, Journal(path), ("a", "b"))
        assert (b"attributes" in path.read_bytes()) == bool(config.attributes)
        for other in range(configs.index(config)):
            with pytest.raises(SourceChangedError):
                Migration(source, target, Journal(tmp_path / f"journal {other}"), ("a", "b"))
        Migration(source, target, Journal(path), ("a", "b"))


def test_batches_are_bounded_in_bytes(tmp_path):
    """Records of many classes can take 300 KB each, however few bytes are stored of them."""
    config = IndexConfig(classes=10_000, bits=32, dim=32_768)
    assert IndexConfig(classes=10, bits=32, dim=2).batch_records() == 10_000
    assert config.batch_records() == 784
    source, target = (FaissIndex.create(None, config, engine="faiss") for _ in range(2))
    assert Migration(source, target, Journal(tmp_path / "journal"), ("a", "b"))._batch_size == 784
    with open(tmp_path / "journal", "ab") as file:
        file.write(LINE.replace(b'"records":1,', b'"records":785,'))
    with pytest.raises(StorageError, match="lists batches of more than 784 records, which semcut does not copy"):
        Migration(source, target, Journal(tmp_path / "journal"), ("a", "b"))
