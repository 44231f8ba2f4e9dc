"""Write data sets that are packed into few files, as other programs write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


class Row(NamedTuple):
    """An image and its labels."""

    content: bytes | None
    labels: tuple[str, ...] = ()


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@cache
def picture(number: int) -> bytes:
    """A picture of noise, another one for each number."""
    stream = io.BytesIO()
    Image.effect_noise((16 + number, 16), 40 + number).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes | str]], mode: str = "w") -> Path:
    """Write a tar archive of these names and contents."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_shard(path: Path, rows: Sequence[Row]) -> Path:
    """Write a shard of WebDataset, with the only label of an image as `.cls`, and several as `.json`."""
    members: list[tuple[str, bytes | str]] = []
    for number, (content, labels) in enumerate(rows):
        members.append((f"{number:03d}.png", content or b""))
        if len(labels) == 1:
            members.append((f"{number:03d}.cls", labels[0]))
        elif labels:
            members.append((f"{number:03d}.json", json.dumps({"labels": labels})))
    return write_tar(path, members)


def write_parquet(path: Path, rows: Sequence[Row], *, group: int = 100, **more: Any) -> Path:
    """Write a Parquet file as `datasets` does, with a column `label`, or `labels` if an image has several."""
    columns: dict[str, Any] = {"image": pa.array([{"bytes": row.content, "path": None} for row in rows], IMAGE)}
    if any(len(row.labels) > 1 for row in rows):
        columns["labels"] = pa.array([list(row.labels) for row in rows], pa.list_(pa.string()))
    else:
        columns["label"] = pa.array([row.labels[0] if row.labels else None for row in rows], pa.string())
    pq.write_table(pa.table({**columns, **more}), path, row_group_size=group)
    return path
