"""Every error that semcut raises on purpose.

    SemcutError
      InvalidEncodingsError   (ValueError)   an array of a batch has a wrong shape, type or value
      InvalidParameterError   (ValueError)   a setting of an index or of a search is out of range
      DuplicateIdError        (ValueError)   an id occurs twice in a batch, or is in the index already
      UnknownIdError          (KeyError)     a requested id is not in the index
      StorageError                           a stored index cannot be used
        NotAnIndexError                        the directory holds no index
        IndexExistsError                       the directory is not empty
        FormatVersionError                     the index was written in another format version
        DamagedIndexError                      files of the index are missing, too short or contradictory
        ConcurrentWriteError                   another process has written to this index in spite of the lock
          LockedError                            another writer has the lock; the message names its process
        ServerError                            a Milvus server does not answer, or refuses a request
      ClosedIndexError                       the index was closed
      DeviceError                            a GPU does not exist, or is out of memory
      DataError                              a data set, an archive or an image cannot be used
      CheckpointError                        files of a model are missing, damaged, or of another architecture
      MissingDependencyError  (ImportError)  a package that a part of semcut needs is not installed

Each message says what was given, what was expected and what to do. An operation that raises one of these errors has
changed nothing, except where its documentation says otherwise. The base in brackets lets a caller who does not know
semcut catch the error as one of Python's own.
"""

from importlib.util import find_spec


def shown(value: object) -> str:
    """Return any value as one line of at most 60 characters, for a message."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


class SemcutWarning(UserWarning):
    """What a user should know although nothing failed; commands print each as one line."""


class SemcutError(Exception):
    """The base of every error that semcut raises on purpose."""


class InvalidEncodingsError(SemcutError, ValueError):
    """An array of a batch has a wrong shape, type or value."""


class InvalidParameterError(SemcutError, ValueError):
    """A setting of an index or of a search is out of range."""


class DuplicateIdError(SemcutError, ValueError):
    """An id occurs twice in a batch, or is in the index already."""


class UnknownIdError(SemcutError, KeyError):
    """A requested id is not in the index."""

    def __str__(self) -> str:  # KeyError would show the repr of its argument, with quotes around the sentence
        return str(self.args[0])


class StorageError(SemcutError):
    """A stored index cannot be used."""


class NotAnIndexError(StorageError):
    """The directory holds no index."""


class IndexExistsError(StorageError):
    """The directory is not empty."""


class FormatVersionError(StorageError):
    """The index was written in another format version."""


class DamagedIndexError(StorageError):
    """Files of the index are missing, too short or contradictory."""


class ConcurrentWriteError(StorageError):
    """Another process has written to this index in spite of the lock."""


class LockedError(ConcurrentWriteError):
    """Another writer has the lock of the index, or this process is a child of the one that opened it."""


class ServerError(StorageError):
    """A Milvus server does not answer, or refuses a request."""


class ClosedIndexError(SemcutError):
    """The index was closed."""

    def __init__(self, message: str = "the index was closed: open it again") -> None:
        super().__init__(message)


class DataError(SemcutError):
    """A data set, an archive or an image cannot be used."""


class CheckpointError(SemcutError):
    """Files of a model are missing, damaged, or of another architecture."""


class MissingDependencyError(SemcutError, ImportError):
    """A package that a part of semcut needs is not installed."""


class DeviceError(SemcutError):
    """A GPU does not exist, or is out of memory."""


def install_hint(extra: str) -> str:
    """Return what to run so that the packages of an extra of semcut are installed, a clause for an error."""
    return f"run `pip install 'semcut[{extra}]'`, in a checkout `pip install '.[{extra}]'`"


def require(packages: dict[str, str], purpose: str, extra: str) -> None:
    """Raise `MissingDependencyError` unless all of these packages are installed, without loading any of them.

    Args:
        packages: the name of each module to import, with the name of the package that installs it.
        purpose: what the packages are needed for, a verb phrase such as "train a network".
        extra: the extra of semcut that installs the packages.

    Raises:
        MissingDependencyError: the message names all missing packages and the extra.
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f"{', '.join(missing)} not installed, needed to {purpose}: {install_hint(extra)}.")
