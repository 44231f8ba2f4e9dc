"""Errors of the connector, beside those of `indexes.errors`.

SemcutError
  DataError             a data set, an archive or an image that was named cannot be used
  CheckpointError       a model's files are missing, damaged, or of another architecture
"""

from semcut.indexes.errors import SemcutError


class DataError(SemcutError):
    """A data set, an archive or an image that was named cannot be used."""


class CheckpointError(SemcutError):
    """A model's files are missing, damaged, or of another architecture."""
