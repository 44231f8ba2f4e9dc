"""The journal of a migration, its checksums, and the comparison of configurations."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.indexes import (
    Encodings,
    IndexConfig,
    InvalidParameterError,
    StorageError,
)
from semcut.indexes.migration.comparison import check_same_config
from semcut.indexes.migration.journal import Journal, checksum
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
    ]
    for change in changed:
        known.add(checksum(Encodings(**{**columns, **change})))
    assert len(known) == 1 + len(changed)


def test_configurations_that_differ():
    """Every setting must be the same, and the message names those that differ."""
    check_same_config(CONFIG, CONFIG, "it")
    for change, said in (
        ({"classes": 7, "prior": None}, "classes 7 instead of 6"),
        ({"bits": 32}, "bits 32 instead of 64"),
        ({"dim": 9}, "dim 9 instead of 8"),
        ({"groups": 2}, "groups 2 instead of 6"),
        ({"prior": None}, "another prior"),
    ):
        with pytest.raises(InvalidParameterError, match=said):
            check_same_config(CONFIG, IndexConfig(**{**CONFIG.model_dump(), **change}), "it")
