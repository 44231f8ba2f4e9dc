"""Indexes with random forged content: `python -m tests.indexes.storage.hostile_files DIRECTORY FIRST COUNT ENGINE`.

Every seed gives one forged copy of a sound index. It is opened, searched, read, verified, changed and compacted. Each
call must succeed or raise an error of semcut; a crash, another exception or an endless loop is a fault. The number of
the seed is printed before its turn, and at the end how many indexes were opened.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from semcut.indexes import FaissIndex, IndexConfig, SemcutError
from semcut.indexes.storage.catalogue_format import EXTENDED as FORMAT
from semcut.indexes.storage.catalogue_format import _cell_crc, _state_crc
from semcut.indexes.storage.column_specs import NAMES, specs
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.verify import verify_path
from tests.indexes.generate import ATTRIBUTES, classified

CONFIG = IndexConfig(classes=5, bits=64, dim=4, stored_probabilities=3, attributes=ATTRIBUTES, string_ids=True)
RECORDS = 300
INTEGERS = (0, 1, -1, 2, 127, 255, 299, 300, 2**31 - 1, -(2**31), 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -0.5, 1.5, 0.95, 5e-324, 1e-30, 1e30, 3e38, 1e308, float("inf"), float("-inf"), float("nan"))


def sound_index(path: Path) -> None:
    """Create the index whose copies are forged."""
    rng = np.random.default_rng(0)
    with FaissIndex.create(path, CONFIG) as index:
        uris = [f"image {number}" if number % 3 else None for number in range(RECORDS)]
        keys = [f"key {number}" for number in range(RECORDS)]
        index.add(replace(classified(rng, CONFIG, RECORDS), uris=uris, ids=keys))
        index.remove(keys[::7])


def forge_bytes(path: Path, rng: random.Random) -> None:
    """Change bytes of the catalogue, or its length."""
    data, page = bytearray((path / CATALOGUE).read_bytes()), 4096
    if len(data) < page:  # forged before
        return
    kind = rng.random()
    if kind < 0.7:
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind < 0.8:
        del data[rng.randrange(len(data)) :]
    elif kind < 0.9:
        here, there = (rng.randrange(len(data) // page) * page for _ in range(2))
        data[here : here + page] = data[there : there + page]
    else:
        data += rng.randbytes(rng.randrange(10_000))
    (path / CATALOGUE).write_bytes(data)


def forge_tables(path: Path, rng: random.Random) -> None:
    """Change a value of a table, with a checksum that matches."""
    db = sqlite3.connect(path / CATALOGUE)
    with suppress(sqlite3.Error, OverflowError, struct.error), db:
        table = rng.choice(("state", "cells", "checksums", "meta"))
        if table == "state":
            config = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()[0]
            values = list(db.execute("SELECT * FROM state").fetchone())
            values[rng.randrange(1, len(values) - 1)] = rng.choice(INTEGERS)
            values[-1] = _state_crc(tuple(values[1:-1]), config, FORMAT)
            names = [row[1] for row in db.execute("PRAGMA table_info(state)")][1:]
            db.execute(f"UPDATE state SET {'=?, '.join(names)}=?", values[1:])
        elif table == "cells":
            cell, number, low, envelope, _ = rng.choice(db.execute("SELECT * FROM cells").fetchall())
            if rng.random() < 0.3:
                number = rng.choice((*INTEGERS, rng.randrange(200)))
            if rng.random() < 0.5:
                low = rng.choice(FLOATS)
            if rng.random() < 0.5:
                value = struct.pack("<f", np.float64(rng.choice(FLOATS)).astype(np.float32))
                at = rng.choice((len(envelope) - 4, 4 * rng.randrange(len(envelope) // 4)))
                envelope = envelope[:at] + value + envelope[at + 4 :]
            db.execute("UPDATE cells SET number=?, low=?, envelope=?, crc=? WHERE cell=?",
                       (number, low, envelope, _cell_crc(cell, number, low, envelope), cell))  # fmt: skip
        elif table == "checksums":
            crcs = rng.randbytes(rng.choice((0, 3, 4, 12, 4096, 5000)))
            db.execute("UPDATE checksums SET crcs=?, chunk=? WHERE name=?",
                       (crcs, rng.choice(INTEGERS), rng.choice(NAMES)))  # fmt: skip
        else:
            name, value = rng.choice((("classes", 2), ("bits", 1024), ("dim", 65_536), ("groups", 64), ("classes", 6)))
            db.execute("UPDATE meta SET value=json_set(value, ?, ?) WHERE key='config'", (f"$.{name}", value))
    db.close()


def forge_columns(path: Path, rng: random.Random) -> None:
    """Change values of a column, with checksums that match."""
    name = rng.choice(NAMES)
    spec, file = specs(CONFIG)[name], path / "generation-0" / name
    values = np.fromfile(file, spec.dtype)
    if not len(values):  # forged before
        return
    for _ in range(rng.choice((1, 5, 100))):
        value: float = rng.choice(FLOATS if spec.dtype.kind == "f" else INTEGERS)
        limits = None if spec.dtype.kind == "f" else np.iinfo(spec.dtype)
        if limits is not None:
            value = min(max(int(value), limits.min), limits.max)
        with np.errstate(over="ignore"):
            values[rng.randrange(len(values))] = np.array(value).astype(spec.dtype)
    if rng.random() < 0.2:
        values = values[: rng.randrange(len(values) + 1)]
    data = values.tobytes()
    file.write_bytes(data)
    size = spec.block * spec.row_bytes
    crcs = np.array([zlib.crc32(data[start : start + size]) for start in range(0, len(data), size)], "<u4")
    db = sqlite3.connect(path / CATALOGUE)
    with db:
        db.execute("UPDATE checksums SET crcs = ? WHERE name = ?", (crcs.tobytes(), name))
    db.close()


def forge_journal(path: Path, rng: random.Random) -> None:
    """Put a journal beside the catalogue."""
    magic = bytes.fromhex("d9d505f920a163d7")
    numbers = [rng.choice((0, 1, 8, 512, 4096, 2**32 - 1, rng.randrange(2**32))) for _ in range(5)]
    head = magic + struct.pack(">5I", *numbers)
    body = rng.randbytes(rng.choice((0, 484, 5000))) + rng.choice((b"", magic))
    Path(f"{path / CATALOGUE}-journal").write_bytes(head + body)


def use(path: Path, engine: str) -> bool:
    """Use an index in all ways, and return whether it could be opened."""
    with suppress(SemcutError):
        verify_path(path)
    try:
        index = FaissIndex.open(path, engine=engine)
    except SemcutError:
        return False
    config = index.config
    queries = classified(np.random.default_rng(1), config, 6)
    calls = [
        lambda: [index.search(queries, k=5, cutoff=t, shortlist=n) for t in (0.0, 0.2, 0.6) for n in (5, 50, None)],
        lambda: index.search(queries[:1], k=3, ranking="fused"),
        lambda: index.get(index.ids()),
        lambda: index.matching('price < 20 or tags is null or camera in ["a", "b"]'),
        lambda: index.search(queries, where='array_contains(tags, "sea") and not (stars > 1)'),
        lambda: index.uris(index.ids()),
        lambda: index.keys(index.ids()),
        lambda: index.get(["key 1", "key 2"]),
        lambda: [index.members(partition) for partition in range(config.classes)],
        index.next_id,
        index.stats,
        lambda: index.upsert(replace(queries, ids=[f"key {number}" for number in range(3, 9)])),
        lambda: index.remove(index.ids()[:5]),
        index.compact,
        lambda: index.search(queries, k=5),
        index.close,
    ]
    for call in calls:
        with suppress(SemcutError):
            call()
    return True


def main() -> None:
    directory, first, count, engine = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    sound, opened = directory / "sound", 0
    sound_index(sound)
    for seed in range(first, first + count):
        print(seed, flush=True)
        rng = random.Random(seed)
        path = Path(shutil.copytree(sound, directory / "forged"))
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(sqlite3.Error, UnicodeDecodeError):
                rng.choice((forge_bytes, forge_tables, forge_columns, forge_columns, forge_journal))(path, rng)
        opened += use(path, engine)
        shutil.rmtree(path)
    print("opened", opened)


if __name__ == "__main__":
    main()
