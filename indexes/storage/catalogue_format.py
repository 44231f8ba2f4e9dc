"""The format of the SQLite catalogue: its tables, and the conversion between their rows and a `Committed`.

    meta        format version and configuration
    state       one row: version (number of commits), generation, rows of the columns, number of records whose feature
                is not L2-normalised (`loose`), in format 6 bytes of the columns `vocabulary` and `key_bytes`, CRC-32 of
                these values and of the configuration
    checksums   CRC-32 of every block of every column, 1,024 blocks (uint32, little-endian) per row
    cells       one row per cell: position, number, lower bound, envelope and largest mass, CRC-32 of these. The mass
                is a float32; the envelope is C x float32, or C x uint16 if the index stores probabilities as multiples
                of 2^-16 (`stored_values`). All are little-endian.

**Formats 3 and 4** are read too. In format 4, every envelope is float32. Format 3 has no masses either: its records
have a mass of at most `LARGEST_UNIT_MASS`. The first change of such an index makes it one of format 5: the cells that
change are written as format 5 has them, the others stay as they are, and their length shows what they are.

**Format 6** is that of an index whose records have attributes or keys, and format 5 that of every other one.

The sizes of cells are not stored, because they follow from the columns `cells` and `removed` (see `snapshot`). Every
change of these tables needs a new `FORMAT_VERSION`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import SUM_TOLERANCE
from semcut.indexes.errors import StorageError
from semcut.indexes.probability_rows import LARGEST_UNIT_MASS
from semcut.indexes.pruning.cell_table import cell_count
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scoring.packed_rows import STEP
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.column_specs import PER_RECORD, names_of, specs

FORMAT_VERSION, EXTENDED = 5, 6
READ_VERSIONS = (3, 4, FORMAT_VERSION, EXTENDED)
"""The versions of catalogues that are read."""
APPLICATION_ID = 0x53454D43
"""SQLite's application_id, "SEMC": it distinguishes a catalogue from every other database."""
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, generation INTEGER NOT NULL,
    records INTEGER NOT NULL, uri_bytes INTEGER NOT NULL, removed INTEGER NOT NULL, loose INTEGER NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE checksums (
    name TEXT NOT NULL, chunk INTEGER NOT NULL, crcs BLOB NOT NULL, PRIMARY KEY (name, chunk)) WITHOUT ROWID;
CREATE TABLE cells (
    cell INTEGER PRIMARY KEY, number INTEGER NOT NULL UNIQUE, low REAL NOT NULL, envelope BLOB NOT NULL,
    crc INTEGER NOT NULL);
"""
_EXTRA = ("vocabulary", "key_bytes")
_CRC = "crc INTEGER NOT NULL);"
EXTENDED_SCHEMA = SCHEMA.replace(_CRC, f"vocabulary INTEGER NOT NULL, key_bytes INTEGER NOT NULL, {_CRC}", 1)
_CHECKSUMS_PER_ROW = 1024
LARGEST = 1 << 48
"""The largest number in the table `state`; none gets there by real commits, and a larger one is damage."""


class Committed(NamedTuple):
    """The content of the catalogue after one commit.

    Attributes:
        version: number of commits so far.
        generation: number of the directory whose column files belong to the index.
        extents: the committed part of every column.
        unnormalised: number of records whose feature is not L2-normalised.
        cells: numbers, lower bounds and envelopes of the cells. Sizes are not stored: those read from the catalogue
            are 0 until `load_snapshot` counts them.
    """

    version: int
    generation: int
    extents: dict[str, Extent]
    unnormalised: int
    cells: Cells

    @staticmethod
    def empty(config: IndexConfig) -> Committed:
        """Return the content of the catalogue of an empty index."""
        return Committed(0, 0, dict.fromkeys(names_of(config), Extent()), 0, Cells.empty(config))


def format_of(config: IndexConfig) -> int:
    """Return the version in which an index of this configuration is written."""
    return EXTENDED if config.attributes or config.string_ids else FORMAT_VERSION


def schema(version: int) -> str:
    """Return the definitions of the tables of a catalogue of this version."""
    return EXTENDED_SCHEMA if version == EXTENDED else SCHEMA


def _extra(config: IndexConfig) -> tuple[str, ...]:
    """Return the columns whose lengths the state has in addition, if the index is of format 6."""
    return _EXTRA if format_of(config) == EXTENDED else ()


def state_row(committed: Committed, config_json: str) -> tuple[int, ...]:
    """Convert a commit to the row of the table `state`, without its first value, which is always 1."""
    rows = {name: extent.rows for name, extent in committed.extents.items()}
    values = (
        committed.version,
        committed.generation,
        rows["ids"],
        rows["uri_bytes"],
        rows["removed"],
        committed.unnormalised,
        *(rows.get(name, 0) for name in _extra(committed.cells.config)),
    )
    return (*values, _state_crc(values, config_json, format_of(committed.cells.config)))


def checksum_rows(name: str, crcs: NDArray[np.uint32], unchanged: int) -> list[tuple[str, int, bytes]]:
    """Convert the checksums of a column to rows of the table `checksums`.

    Args:
        name: the column.
        crcs: (blocks,) the CRC-32 of every block.
        unchanged: number of leading blocks whose checksums are stored already; table rows that contain only these
            checksums are left out.
    """
    size = _CHECKSUMS_PER_ROW
    return [
        (name, chunk, crcs[chunk * size : (chunk + 1) * size].astype("<u4").tobytes())
        for chunk in range(unchanged // size, -(-len(crcs) // size))
    ]


def cell_rows(cells: Cells, positions: NDArray[np.int64]) -> Iterator[tuple[int, int, float, bytes, int]]:
    """Yield the cells at these (n,) positions as rows of the table `cells`.

    Raises:
        StorageError: their bounds are none that an opening index would accept.
    """
    step = max(1, _BYTES_AT_ONCE // max(_lengths(cells.config)))
    for start in range(0, len(positions), step):
        part = positions[start : start + step]
        envelopes, lows = cells.envelopes[part], cells.lows[part] + np.float32(0)  # SQLite stores no -0.0
        if not _possible(cells.config, lows, envelopes, cells.masses[part]):
            raise StorageError("the bounds of the new records cannot be stored: their probabilities are not in range")
        if _small(cells.config):
            envelopes = np.minimum(np.ceil(envelopes * np.float32(1 / STEP)), _LARGEST_MULTIPLE).astype("<u2")
        for row in zip(
            part.tolist(),
            cells.numbers[part].tolist(),
            lows.tolist(),
            map(bytes.__add__, map(bytes, envelopes), map(bytes, cells.masses[part, None])),
            strict=True,
        ):
            yield (*row, _cell_crc(*row))


def _possible(
    config: IndexConfig, lows: NDArray[np.float32], envelopes: NDArray[np.float32], masses: NDArray[np.float32]
) -> bool:
    """Return whether bounds of cells are those of probabilities, from which kernels compute array positions."""
    most = 1 + SUM_TOLERANCE
    # A larger envelope of packed rows could not be written again. Masses are rounded up.
    highest = STEP * _LARGEST_MULTIPLE if _small(config) else most
    for values, largest in ((lows, most), (envelopes, highest), (masses, most * config.classes * (1 + 1e-6))):
        if values.size and not (values.min() >= 0 and values.max() <= largest):  # NaN is neither
            return False
    return True


def _small(config: IndexConfig) -> bool:
    """Return whether all envelopes are multiples of `STEP` below 1, as the probabilities are."""
    return config.stored_probabilities < config.classes


def _lengths(config: IndexConfig) -> tuple[int, int]:
    """Return the lengths of an envelope with its mass, in bytes: as it is written, and as earlier formats have it."""
    width = 4 * config.classes
    return (width // 2 + 4, width + 4) if _small(config) else (width + 4, width)


_STATE = ("one", "version", "generation", "records", "uri_bytes", "removed", "loose")
_INTEGER = "CASE WHEN typeof({0}) = 'integer' THEN {0} END"


def state_reading(config: IndexConfig) -> str:
    """Return the query for the rows of `state` that `committed_of` needs; a value of another type is read as NULL."""
    names = (*_STATE, *_extra(config), "crc")
    return f"SELECT {', '.join(map(_INTEGER.format, names))} FROM state LIMIT 2"


def version_reading() -> str:
    """Return the query for the number of commits; a value of another type is read as NULL."""
    return f"SELECT {_INTEGER.format('version')} FROM state LIMIT 1"


def table_readings(config: IndexConfig, size: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the queries, with parameters, for the checksums of every column, in their order, and for the cells.

    In a forged catalogue, many rows can refer to the same bytes, and any value can be long. So no value is read before
    its type and its length are known, and no more rows than fit into the file; one row too many shows.

    Args:
        config: the configuration of the index.
        size: bytes of the catalogue.
    """
    chunk, lengths = 4 * _CHECKSUMS_PER_ROW, _lengths(config)
    checksums = (
        f"SELECT CASE WHEN typeof(crcs) = 'blob' AND length(crcs) <= {chunk} THEN crcs END "
        "FROM checksums WHERE name = ? ORDER BY chunk LIMIT ?"
    )
    cells = (
        f"SELECT cell, {_INTEGER.format('number')}, CASE WHEN typeof(low) = 'real' THEN low END, CASE WHEN "
        f"typeof(envelope) = 'blob' AND length(envelope) IN {lengths} THEN envelope END, "
        f"{_INTEGER.format('crc')} "
        "FROM cells ORDER BY cell LIMIT ?"
    )
    return [
        *((checksums, (name, size // chunk + 2)) for name in names_of(config)),
        (cells, (min(cell_count(config), size // min(lengths)) + 1,)),
    ]


def committed_of(
    config: IndexConfig,
    config_json: str,
    format_version: int,
    states: list[tuple[Any, ...]],
    checksums: dict[str, list[tuple[Any]]],
    cells: list[tuple[Any, ...]],
) -> Committed:
    """Convert the rows of all tables to a commit.

    Args:
        config: the configuration of the index.
        config_json: the configuration as JSON, as it is stored.
        format_version: the format of the catalogue, one of `READ_VERSIONS`.
        states: all rows of `state`.
        checksums: for every column, the crcs of its rows of `checksums`, in order of chunks.
        cells: all rows of `cells`, in order of position.

    Raises:
        ValueError: the rows do not match their checksums, the configuration or each other; the message is the second
            half of a sentence about the catalogue.
    """
    if len(states) != 1 or any(type(value) is not int for value in states[0]):
        raise ValueError("it has no state")
    _, version, generation, records, uri_bytes, removed, unnormalised, *extra, crc = states[0]
    expected = _state_crc(states[0][1:-1], config_json, format_version)
    if crc != expected or min(states[0]) < 0 or max(states[0][:-1]) > LARGEST:
        raise ValueError("its state does not match its checksum")
    if removed > records or unnormalised > records - removed:
        raise ValueError("its state contradicts itself")
    rows = {**dict.fromkeys(PER_RECORD, records), "uri_bytes": uri_bytes, "removed": removed}
    rows |= dict(zip(_extra(config), extra, strict=True))
    if any(rows.get(name) for name in _EXTRA if name not in specs(config)):
        raise ValueError("its state contradicts its configuration")
    blocks = {name: spec.block for name, spec in specs(config).items()}
    extents = {name: _extent(name, rows[name], block, checksums[name]) for name, block in blocks.items()}
    return Committed(version, generation, extents, unnormalised, _cells(config, cells))


def _extent(name: str, rows: int, block: int, checksums: list[tuple[Any]]) -> Extent:
    found = [crcs for (crcs,) in checksums]
    if not all(isinstance(crcs, bytes) and len(crcs) % 4 == 0 for crcs in found):
        raise ValueError("its checksums are not valid")
    crcs = np.frombuffer(b"".join(found), "<u4").astype(np.uint32)
    if len(crcs) != -(-rows // block):
        raise ValueError(f"the checksums of the column {name} are not complete")
    return Extent(rows, crcs)


_LARGEST_MULTIPLE, _BYTES_AT_ONCE = 65_535, 1 << 24
_CELL_TYPES = (int, int, float, bytes, int)


def _cells(config: IndexConfig, found: list[tuple[Any, ...]]) -> Cells:
    if not found:
        return Cells.empty(config)
    columns = tuple(zip(*found, strict=True))  # a few calls for each column, since an index has thousands of cells
    positions, numbers, lows, envelopes, crcs = columns
    if (
        any(set(map(type, column)) != {kind} for column, kind in zip(columns, _CELL_TYPES, strict=True))
        or not set(map(len, envelopes)) <= set(_lengths(config))
        or positions != tuple(range(len(found)))
        or not 0 <= min(numbers) <= max(numbers) < cell_count(config)
        or crcs != tuple(map(_cell_crc, positions, numbers, lows, envelopes))
    ):
        raise ValueError("its cells are not valid")
    bounds, masses = _bounds(config, envelopes)
    cells = Cells(
        config=config,
        numbers=np.array(numbers, np.int64),
        sizes=np.zeros(len(found), np.int64),
        lows=np.clip(np.array(lows), -1, 2).astype(np.float32),  # numbers that no float32 holds are refused below
        envelopes=bounds,
        masses=masses,
    )
    if not _possible(config, cells.lows, cells.envelopes, cells.masses):
        raise ValueError("the bounds of its cells are not probabilities")
    if len(np.unique(cells.numbers)) != len(cells):
        raise ValueError("its cells are not distinct")
    return cells


def _bounds(config: IndexConfig, rows: tuple[bytes, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Convert the stored envelopes of n cells, with their masses: (n, C) and (n,) float32."""
    envelopes = np.empty((len(rows), config.classes), np.float32)
    masses = np.full(len(rows), LARGEST_UNIT_MASS)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    step = max(1, _BYTES_AT_ONCE // max(_lengths(config)))
    for size in set(sizes.tolist()):
        every = np.flatnonzero(sizes == size)
        multiples = _small(config) and size == _lengths(config)[0]
        width = (2 if multiples else 4) * config.classes
        for start in range(0, len(every), step):
            some = every[start : start + step]
            content = np.frombuffer(b"".join(rows[place] for place in some.tolist()), np.uint8).reshape(-1, size)
            values = np.ascontiguousarray(content[:, :width]).view("<u2" if multiples else "<f4")
            envelopes[some] = values * np.float32(STEP) if multiples else values
            if size > width:
                masses[some] = np.ascontiguousarray(content[:, width:]).view("<f4")[:, 0]
    return envelopes, masses


def _state_crc(values: tuple[int, ...], config_json: str, version: int) -> int:
    return zlib.crc32(f"{values} {version} {config_json}".encode())


def _cell_crc(cell: int, number: int, low: float, envelope: bytes) -> int:
    return zlib.crc32(envelope, zlib.crc32(f"{cell} {number} {low!r}".encode()))
