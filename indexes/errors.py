"""Every error that semcut raises on purpose.

    SemcutError
      InvalidEncodingsError   (ValueError)   an array of a batch has a wrong shape, type or value
      InvalidParameterError   (ValueError)   a setting of an index or of a search is out of range
      DuplicateIdError        (ValueError)   an id occurs twice in a batch, or is in the index already
      UnknownIdError          (KeyError)     an id that was asked for is not in the index
      StorageError                           a stored index cannot be used
        NotAnIndexError                        the directory holds no index
        IndexExistsError                       the directory holds something already
        FormatVersionError                     the index was written in another format version
        DamagedIndexError                      files of the index are missing, short or contradictory
        ConcurrentWriteError                   another process has written to this index in spite of the lock
          LockedError                            another writer has the index; the message says which process
        ServerError                            a Milvus server does not answer, or refuses what was asked
      ClosedIndexError                       the index was closed
      DeviceError                            a GPU is not there, or is out of memory
      DataError                              a data set, an archive or an image that was named cannot be used
      CheckpointError                        files of a model are missing, damaged, or of another architecture
      MissingDependencyError  (ImportError)  a package that this part needs is not installed

Each message says what was given, what was expected and what to do. When one of these is raised, nothing was
changed. The second base lets a caller who knows nothing of semcut catch them as usual.
"""

from importlib.util import find_spec


def shown(value: object) -> str:
    """A value in one line of at most 60 characters, whatever it is, for a message."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


class SemcutError(Exception):
    """The base of every error that semcut raises on purpose."""


class InvalidEncodingsError(SemcutError, ValueError):
    """An array of a batch has a wrong shape, type or value."""


class InvalidParameterError(SemcutError, ValueError):
    """A setting of an index or of a search is out of range."""


class DuplicateIdError(SemcutError, ValueError):
    """An id occurs twice in a batch, or is in the index already."""


class UnknownIdError(SemcutError, KeyError):
    """An id that was asked for is not in the index."""

    def __str__(self) -> str:  # KeyError shows the repr of its argument: quotes around a sentence
        return str(self.args[0])


class StorageError(SemcutError):
    """A stored index cannot be used."""


class NotAnIndexError(StorageError):
    """The directory holds no index."""


class IndexExistsError(StorageError):
    """The directory holds something already."""


class FormatVersionError(StorageError):
    """The index was written in another format version."""


class DamagedIndexError(StorageError):
    """Files of the index are missing, short or contradictory."""


class ConcurrentWriteError(StorageError):
    """Another process has written to this index in spite of the lock."""


class LockedError(ConcurrentWriteError):
    """Another writer has the index."""


class ServerError(StorageError):
    """A Milvus server does not answer, or refuses what was asked."""


class ClosedIndexError(SemcutError):
    """The index was closed."""

    def __init__(self, message: str = "the index was closed: open it again") -> None:
        super().__init__(message)


class DataError(SemcutError):
    """A data set, an archive or an image that was named cannot be used."""


class CheckpointError(SemcutError):
    """Files of a model are missing, damaged, or of another architecture."""


class MissingDependencyError(SemcutError, ImportError):
    """A package that this part needs is not installed."""


class DeviceError(SemcutError):
    """A card is not there, or is out of memory."""


def require(packages: dict[str, str], purpose: str, extra: str) -> None:
    """Raise `MissingDependencyError` unless all of these packages are installed, without loading any of them.

    Args:
        packages: name of the module that each is imported by, and of the package that it comes with.
        purpose: what they are needed to do.
        extra: of semcut, that installs them.
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(
            f"{', '.join(missing)} not installed, needed to {purpose}: run `pip install 'semcut[{extra}]'`."
        )
