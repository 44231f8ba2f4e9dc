"""`UnpackedFolders`: makes the folders that the members of an archive name.

A million members can each be 32 folders deep, in other folders than the member before, so existing folders above one
are not tried again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from semcut.connector.data.archive_members import RefusedArchiveError
from semcut.indexes.errors import shown


class UnpackedFolders:
    """Makes folders inside a new folder, in which only this object and the unpacking of files write.

    Args:
        target: the new folder.
        charge: called for each folder that is made; it raises an error if there is no room for more.
    """

    def __init__(self, target: Path, charge: Callable[[], None]) -> None:
        self._target, self._charge = target, charge
        self._latest: list[str] = []
        self.made = 0

    def make(self, parts: list[str]) -> None:
        """Make a folder and those above it; one may exist, but not as a file.

        The deepest is tried first, so that a folder of many files, or of few between others, costs two calls each time.
        """
        if parts == self._latest:
            return
        missing: list[Path] = []
        folder = self._target.joinpath(*parts)
        while not self._is_made(folder, parts):
            missing.append(folder)
            folder = folder.parent
        while missing:
            self._is_made(missing.pop(), parts)
        self._latest = list(parts)

    def _is_made(self, folder: Path, parts: list[str]) -> bool:
        """Make a folder, if it does not exist; return False if the folder above it does not exist."""
        try:
            folder.mkdir()
            self.made += 1
            self._charge()
        except FileNotFoundError:
            if folder.parent == self._target:  # which was there: another program has deleted it
                raise
            return False
        except (FileExistsError, NotADirectoryError):
            if not folder.is_dir():
                raise RefusedArchiveError(f"{shown('/'.join(parts))} is a file and a folder") from None
        except OSError as error:
            raise refused_name("/".join(parts), error) from None
        return True


def new_file(path: Path, name: str) -> IO[bytes]:
    """Create a file that is not there yet, and open it for writing; a link is not followed.

    Args:
        path: the file.
        name: its name in the archive, for errors.

    Raises:
        RefusedArchiveError: the archive holds the file twice, or its name cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise RefusedArchiveError(f"it holds {shown(name)} twice") from None
    except OSError as error:
        raise refused_name(name, error) from None
    return os.fdopen(descriptor, "wb")


def refused_name(name: str, error: OSError) -> Exception:
    """Return the error to raise for one of the system: that of the archive if the disk takes no such name."""
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return RefusedArchiveError(f"the name {shown(name)} cannot be written to this disk ({error.strerror})")
    return error
