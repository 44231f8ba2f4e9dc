"""Compare a folder with the records of an index: what `semcut sync` will do. Nothing here changes anything.

A record is removed only if its file is certainly gone: nothing is removed for a folder that is missing, cannot be
listed or has become empty, nor below a subfolder that cannot be listed, nor for a file that the system refuses to show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from semcut.connector.data.image_folders import HIDDEN, NOT_TEXT, Skipped, list_folder, warn_of_folders_in_two_classes
from semcut.connector.data.image_uris import below_root, path_of
from semcut.connector.data.packed_files import packed_files
from semcut.connector.retrieval.file_changes import (
    THERE,
    FileChanges,
    add_digests,
    compare,
    records_by_content,
    same_contents,
    why_missing,
)
from semcut.connector.retrieval.file_records import Target
from semcut.connector.retrieval.indexed_files import IndexedFiles
from semcut.connector.retrieval.trained_records import TRAINED
from semcut.indexes.errors import DataError


@dataclass(frozen=True)
class FolderChanges:
    """What has changed in a folder since its files were indexed.

    Attributes:
        folder: absolute path of the folder.
        files: what has become of the files that are listed; `new` and `changed` are also in the fields below.
        moved: files without a record, with the content of a file that is gone, and its record.
        copied: other files without a record, or with a changed content, whose content another record has; each with the
            id of that record, which stays as it is until it is copied.
        encoded: files that the network has to encode.
        gone: records whose file is gone, without those of moved files, with their uris, by id.
        doubles: other records of files that are listed and have a record that is kept, with their uris, by id.
        learned: records of files whose content has become one of `trained`, with their uris, by id.
        others: number of records of other files, which are left alone.
        trained: new and changed files that are left out, because the network was trained on them.
        skipped: what was left out, with reasons.
    """

    folder: str
    files: FileChanges
    moved: list[Target] = field(default_factory=list)
    copied: list[tuple[str, int]] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)
    gone: dict[int, str] = field(default_factory=dict)
    doubles: dict[int, str] = field(default_factory=dict)
    learned: dict[int, str] = field(default_factory=dict)
    others: int = 0
    trained: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        files = self.files
        return bool(
            files.new or files.changed or files.touched or files.settled or self.gone or self.doubles or self.trained
        )


def folder_given(folder: str | os.PathLike[str], root: str | None) -> str:
    """Return the absolute path of a folder, written as the uris of the index have it.

    Raises:
        DataError: the folder is not there, or cannot be used.
    """
    path = os.path.abspath(folder) if ".." not in os.fspath(folder).split("/") else os.path.realpath(folder)
    if root is not None and not os.path.isdir(root) and not f"{path}/".startswith(f"{root}/"):
        raise DataError(
            f"the folder of the index, {root}, is not there: give its new place with `semcut relocate --images FOLDER`"
        )
    require_listable(path)
    if packed_files(path) is not None:
        raise DataError(f"{path} has Parquet files or shards: give the folder of its images, or use `semcut add`")
    with suppress(OSError):
        if root is not None and os.path.samefile(path, root):
            return root
    return path if root is None else below_root(path, root)


def require_listable(path: str, *, filled: bool = False) -> None:
    """Raise `DataError` unless there is a folder that can be listed, on request also if it has nothing in it."""
    try:
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except FileNotFoundError:
        raise DataError(
            f"{path} is not there, and nothing was removed for it: if it was moved, give its new place with `semcut "
            "relocate --images FOLDER`"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot list {path}: {reason}; nothing was removed for it") from None
    if empty and filled:
        raise DataError(f"{path} is empty, and nothing was removed for it: is it where its files are?")


def folder_changes(
    files: IndexedFiles, folder: str, left_out: Callable[[], Collection[str]] = frozenset
) -> FolderChanges:
    """Compare a folder with the records of an index.

    Args:
        files: the files of the index.
        folder: absolute path, from `folder_given`.
        left_out: returns the digests, in hex, of contents that are not added; it is asked if there are new or changed
            files.

    Raises:
        DataError: the folder cannot be listed, or has no files any more though there are records of files in it.

    Warns:
        SemcutWarning: images are in two classes.
    """
    listing = list_folder(Path(folder))
    warn_of_folders_in_two_classes(listing, stacklevel=2)
    uris = [files.uri_of(path) for path in listing.files]
    listed = set(uris)
    ids, start = files.ids, f"{folder}/"
    below = {uri: str(path_of(uri, files.root)) for uri in ids.keys() - listed}
    below = {uri: path for uri, path in below.items() if path.startswith(start)}
    if below and not uris:
        raise DataError(
            f"{folder} has no files, and the index has {len(below):,} records of files in it: nothing was removed; if "
            "they are gone for good, `semcut remove --uri` removes them"
        )
    found = compare(files, uris)
    unlisted = {path for path, reason in listing.skipped if reason not in (HIDDEN, NOT_TEXT)}
    gone = {uri: path for uri, path in below.items() if not _is_in(path, unlisted)}
    why = {uri: why_missing(path) for uri, path in gone.items()}
    missing = [uri for uri, reason in why.items() if reason is None] + found.missing
    refused = [(gone[uri], reason) for uri, reason in why.items() if reason is not None and reason != THERE]
    moved, copied, encoded = _by_content(files, found, missing)
    moved_ids = {record for _, record in moved}
    trained = _trained(files, found, {uri for uri, _ in moved}, left_out)
    if trained:
        no = set(trained)
        found = replace(
            found,
            new=[uri for uri in found.new if uri not in no],
            changed=[uri for uri in found.changed if uri not in no],
        )
        copied, encoded = [pair for pair in copied if pair[0] not in no], [uri for uri in encoded if uri not in no]
    removed = {ids[uri]: uri for uri in missing if ids[uri] not in moved_ids}
    absent = set(missing)
    removed |= {record: str(uri) for uri, record in files.other_records if uri in absent}
    kept = listed - absent - {files.uri_of(path) for path, _ in found.refused}
    doubles = {record: str(uri) for uri, record in files.other_records if uri in kept}
    return FolderChanges(
        folder,
        found,
        moved,
        copied,
        encoded,
        removed,
        doubles,
        {ids[uri]: uri for uri in trained if uri in ids},
        len(files.index) - len(removed) - len(doubles) - len(moved) - len(listed & ids.keys()) + len(found.missing),
        trained,
        [
            *listing.skipped, *found.unreadable, *found.refused, *refused,
            *((files.path_of(uri), TRAINED) for uri in trained),
        ],
    )  # fmt: skip


def _trained(
    files: IndexedFiles, found: FileChanges, moved: Collection[str], left_out: Callable[[], Collection[str]]
) -> list[str]:
    """Return the new and changed files that are left out for their content; a file that was moved keeps its record."""
    wanted = [uri for uri in (*found.new, *found.changed) if uri not in moved]
    contents = left_out() if wanted else ()
    if not contents:
        return []
    add_digests(files, wanted, found.seen)
    return [uri for uri in wanted if (now := found.seen[uri]) is not None and now.digest in contents]


def _is_in(path: str, folders: set[str]) -> bool:
    """Return whether a file is in one of these folders, at any depth."""
    while folders and len(path) > 1:
        if path in folders:
            return True
        path = path.rpartition("/")[0]
    return False


def _by_content(
    files: IndexedFiles, found: FileChanges, missing: Sequence[str]
) -> tuple[list[Target], list[tuple[str, int]], list[str]]:
    """Return the moved files, the copied files and the files to encode, see `FolderChanges`."""
    known = files.known()
    wanted = [*found.new, *found.changed]
    contents = same_contents(files, known, wanted, found.seen)
    absent, new, changed = set(missing), set(found.new), set(found.changed)
    moved: list[Target] = []
    copied: dict[str, int] = {}
    for digest, owning in records_by_content(known, contents).items():
        lasting = [uri for uri in owning if uri not in changed]
        pairs = _paired([uri for uri in lasting if uri in absent], [uri for uri in contents[digest] if uri in new])
        moved += [(uri, known.facts[source].record) for source, uri in pairs]
        done = {uri for _, uri in pairs}
        if lasting:
            source = known.facts[lasting[0]].record
            copied |= dict.fromkeys((uri for uri in contents[digest] if uri not in done), source)
    done = {uri for uri, _ in moved}
    return moved, list(copied.items()), [uri for uri in wanted if uri not in done and uri not in copied]


def _paired(before: Sequence[str], after: Sequence[str]) -> list[tuple[str, str]]:
    """Pair files that are gone with new ones of the same content: first those of the same name, then in order."""
    left = dict.fromkeys(sorted(after))
    names = {uri.rpartition("/")[2]: uri for uri in reversed(left)}
    pairs = []
    others = []
    for uri in sorted(before):
        same = names.pop(uri.rpartition("/")[2], None)
        if same is None:
            others.append(uri)
        else:
            del left[same]
            pairs.append((uri, same))
    return pairs + list(zip(others, left, strict=False))
