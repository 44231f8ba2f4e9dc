"""Fetch a source that has an address, such as `s3://photos/train`, into the cache, where it is a source like any other.

fsspec opens the address: a folder, an archive or a folder in one, a list, a Parquet file, or a pattern of Parquet files
or shards. All its files are fetched once; when the store says that one has another size, version, digest or time of
change, all of them are fetched again, into another folder.

So an index has only paths in the cache, no addresses: nothing that an index says makes semcut open one. Only a user
does, by naming it in a command. What a store answers may mean harm: names that lead out of the folder are refused,
files that are too large for an image are left out, and everything is bounded by the free space of the disk. A list that
is fetched names files below its own folder only, none of this machine.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any, NamedTuple, TypeVar

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.archive_members import (
    DISK_BLOCK,
    Budget,
    RefusedArchiveError,
    parts_of,
    require_members,
)
from semcut.connector.data.decoding_messages import MAX_BYTES
from semcut.connector.data.list_files import MAX_LIST_BYTES, SUFFIXES, list_paths
from semcut.connector.data.packed_files import MAX_FILES, PARQUET, SHARDS, without_braces
from semcut.connector.data.source_folders import cached
from semcut.connector.data.unpacked_folders import UnpackedFolders
from semcut.indexes.errors import DataError, SemcutWarning, require, shown

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_REFUSED = re.compile(r"::|\A(reference|blockcache|filecache|simplecache|cached)://", re.IGNORECASE)
"""Chains of addresses, and file systems whose content names files of others, or is stored as a pickle."""
_IDENTITY = frozenset(
    "size length contentlength etag version versionid generation revision rev sha sha1 sha256 md5 md5hash md5checksum "  # noqa: SIM905  # easier to read
    "contentmd5 crc crc32 crc32c crc64 checksum chksum filechecksum digest hash contenthash xethash blobid oid lfs hex "
    "mtime ctime modify modified lastmodified modifiedtime modificationtime servermodified clientmodified datetime "
    "created createdtime creationtime timecreated updated updatedat".split()
)
"""What stores call a size, a version, a digest and a time of change, in small letters without signs.

Other facts may change when a file is only read, as its time of access does: `time`, at sftp:// and smb://.
"""
_ARCHIVES = (*SHARDS, ".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_THREADS, _AT_ONCE = 8, 512
_COPY_BYTES = 1 << 20

_S = TypeVar("_S")
_T = TypeVar("_T")
_Facts = Mapping[str, Any]
"""What a store says of a file; its `name` is where it is fetched from, which is composed here, below the source."""


class _Plan(NamedTuple):
    """The files to fetch, by their paths in the new folder; the path of the source in it; and the content of a list.

    The content is read once, so that the list that is stored is the one whose paths were checked.
    """

    files: dict[str, _Facts]
    inside: str
    content: bytes | None = None


def is_remote(source: str) -> bool:
    """Return whether a source is an address."""
    return _ADDRESS.match(source) is not None and not os.path.lexists(source)


def fetched(source: str) -> str:
    """Return the path of a source that was fetched into the cache; fetch it first if needed.

    Raises:
        DataError: the address cannot be opened, has no such source, or breaks a rule above.
        MissingDependencyError: fsspec is not installed.
    """
    require({"fsspec": "fsspec"}, "read images from an address", "remote")
    from fsspec.core import url_to_fs

    if _REFUSED.search(source):
        raise DataError(f"{source} leads through another address or a cache: give the address of the images themselves")
    with _errors_of_stores(source):
        system, path = url_to_fs(source)
        plan = _plan(system, path.rstrip("/"), source)
        facts = sorted((name, _identity(found)) for name, found in plan.files.items())
    key = hashlib.sha256(f"{source} {facts}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    root = cached(f"remote-{key}", lambda target: _fetch(system, plan, target, source))
    return str(root / plan.inside)


def _identity(facts: _Facts) -> list[str]:
    """Return what a store says of the content of a file, in a fixed order."""
    return sorted(str(fact) for fact in facts.items() if re.sub("[^a-z0-9]", "", str(fact[0]).lower()) in _IDENTITY)


@contextmanager
def _errors_of_stores(source: str) -> Iterator[None]:
    """Raise `DataError` for any error: those of file systems are of many types."""
    try:
        yield
    except (DataError, Warning):  # a user can have warnings raised
        raise
    except FileNotFoundError:
        raise DataError(
            f"{source} does not exist: give the address of a folder, an archive, a list, Parquet files or shards"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"cannot fetch {source}: {reason}") from None


def _plan(system: Any, path: str, source: str) -> _Plan:
    """Find the files of a source."""
    name = path.lower()
    if name.endswith(PARQUET + SHARDS) and re.search(r"[*?\[{]", path) and not system.exists(path):
        return _Plan(_matching(system, path, source), "")
    try:
        facts = system.info(path)
    except FileNotFoundError:
        return _in_archive(system, path)
    known = name.endswith(PARQUET + _ARCHIVES + SUFFIXES)
    if facts["type"] == "directory" or (not known and system.isdir(path)):
        return _Plan(_below(system, path, source), "")
    if not known:
        raise DataError(f"{source} is no folder, and its name is not that of an archive, a list or a Parquet file")
    file, facts = _last(path), {**facts, "name": path}
    if not name.endswith(SUFFIXES):
        return _Plan({file: facts}, file)
    content, files = _listed(system, path)
    return _Plan({**files, file: facts}, file, content)


def _matching(system: Any, path: str, source: str) -> dict[str, _Facts]:
    """Return the files that a pattern names."""
    found: dict[str, _Facts] = {}
    for pattern in without_braces(path, source):
        matches = system.glob(pattern, detail=True) if glob.has_magic(pattern) else {pattern: system.info(pattern)}
        for match, facts in matches.items():
            facts = {**facts, "name": match}
            if found.setdefault(_last(match), facts) is not facts:
                raise RefusedArchiveError(f"the pattern names two files {shown(_last(match))}: give one folder")
        if len(found) > MAX_FILES:
            raise RefusedArchiveError(f"the pattern names more than {MAX_FILES:,} files: give a part of them")
    if not found:
        raise FileNotFoundError
    return found


def _in_archive(system: Any, path: str) -> _Plan:
    """Find the archive in which a folder is."""
    parts = path.split("/")
    for count in range(len(parts) - 1, 0, -1):
        archive = "/".join(parts[:count])
        if archive.lower().endswith(_ARCHIVES) and system.isfile(archive):
            file = _last(archive)
            facts = {**system.info(archive), "name": archive}
            return _Plan({file: facts}, "/".join((file, *parts_of("/".join(parts[count:])))))
    raise FileNotFoundError


def _below(system: Any, path: str, source: str) -> dict[str, _Facts]:
    """Return all files in a folder, at any depth; warn of what is no file."""
    found: dict[str, _Facts] = {}
    others: list[str] = []
    for folder, folders, files in system.walk(path, detail=True, on_error="raise"):
        folder = folder.rstrip("/")
        if folder != path and not folder.startswith(f"{path}/"):
            raise RefusedArchiveError(f"the folder {shown(folder)} is not in {shown(path)}")
        below = folder[len(path) :].strip("/")
        for name in folders:
            parts_of(f"{below}/{name}".lstrip("/"))  # links to a folder above would have no end
        for name, facts in files.items():
            if not name:
                continue  # how some stores mark a folder
            place = "/".join(parts_of(f"{below}/{name}".lstrip("/")))
            if facts["type"] != "file":
                others.append(place)
            elif place in found:
                raise RefusedArchiveError(f"it holds {shown(place)} twice")
            else:
                found[place] = {**facts, "name": f"{folder}/{name}"}
        require_members(len(found) + len(others), "files")
    if others:
        _warn(f"{source}: left out {len(others):,} entries that are no files, the first is {shown(min(others))}")
    return found


def _warn(sentence: str) -> None:
    warnings.warn(sentence, SemcutWarning, stacklevel=5)


def _listed(system: Any, path: str) -> tuple[bytes, dict[str, _Facts]]:
    """Return the content of a list, and the files that it names, of those that are there."""
    with system.open(path, "rb") as stream:
        content = stream.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise RefusedArchiveError(f"the list has more than {MAX_LIST_BYTES:,} bytes: divide it")
    names = sorted({"/".join(parts_of(name)) for name in list_paths(_last(path), io.BytesIO(content))})
    above = path.rpartition("/")[0]

    def look(name: str) -> _Facts | None:
        try:
            found = system.info(f"{above}/{name}")
        except FileNotFoundError:
            return None  # reading the list says so
        return {**found, "name": f"{above}/{name}"} if found["type"] == "file" else None

    with _threads() as threads:
        found = zip(names, _results(threads, look, names), strict=True)
        return content, {name: facts for name, facts in found if facts is not None}


def _fetch(system: Any, plan: _Plan, target: Path, source: str) -> None:
    """Copy the files of a source to a new folder."""
    target.mkdir()
    budget, lock, left_out = Budget(1 << 62, shutil.disk_usage(target).free), Lock(), list[str]()
    stopped = Event()

    def create(name: str) -> IO[bytes] | None:
        """Open a new file; None after an error or Ctrl-C, since the folder is then being deleted."""
        with lock:
            return None if stopped.is_set() else open(target / name, "xb")

    def charge(count: int) -> None:
        with lock:
            budget.charge(count)

    def copy(item: tuple[str, _Facts]) -> None:
        name, facts = item
        most = None if name.lower().endswith(PARQUET + _ARCHIVES) else MAX_BYTES
        charge(DISK_BLOCK)
        with system.open(facts["name"], "rb") as stream:
            file = create(name)
            if file is None:
                return
            with file:
                while (block := stream.read(_COPY_BYTES)) and not stopped.is_set():
                    charge(len(block))
                    file.write(block)
                    if most is not None and file.tell() > most:
                        (target / name).unlink()
                        left_out.append(name)
                        return

    folders = UnpackedFolders(target, lambda: charge(DISK_BLOCK))
    items = [(name, facts) for name, facts in plan.files.items() if plan.content is None or name != plan.inside]
    with _errors_of_stores(source), _threads() as threads:
        try:
            if plan.content is not None:
                charge(len(plan.content))
                (target / plan.inside).write_bytes(plan.content)
            for start in range(0, len(items), _AT_ONCE):
                part = items[start : start + _AT_ONCE]
                for name, _ in part:
                    folders.make(name.split("/")[:-1])
                for _ in _results(threads, copy, part):
                    pass
        finally:
            with lock:
                stopped.set()
    if left_out:
        most, first = f"{MAX_BYTES:,} bytes", shown(min(left_out))
        _warn(f"{source}: left out {len(left_out):,} files of more than {most}, the first is {first}")


@contextmanager
def _threads() -> Iterator[DaemonThreads]:
    """Yield threads that begin nothing new after an error or Ctrl-C; neither waits for a store that does not answer."""
    threads = DaemonThreads(_THREADS, "fetch")
    try:
        yield threads
    finally:
        threads.stop()


def _results(threads: DaemonThreads, work: Callable[[_S], _T], items: Sequence[_S]) -> Iterator[_T]:
    """Yield the results for all items in order; few calls wait at once, since a list can have millions."""
    for start in range(0, len(items), _AT_ONCE):
        futures = [threads.submit(partial(work, item)) for item in items[start : start + _AT_ONCE]]
        yield from map(result_of, futures)


def _last(path: str) -> str:
    """Return the name of a file without its folder."""
    return parts_of(path.rpartition("/")[2])[-1]
