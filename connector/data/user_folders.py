"""Where semcut keeps what belongs to the user's account: the folder of an environment variable, or that of the system.

Without a home folder there is none of the system. The library that knows it then fails, or, in older versions, gives a
folder below the current one, which can be anyone's; both are one error here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from semcut.indexes.errors import DataError, require


def user_folder(kind: Literal["cache", "data"], variable: str) -> Path:
    """Return the folder for the cache, or for the data, of this account; it need not exist.

    Args:
        kind: which of the two.
        variable: environment variable that names another folder.

    Raises:
        DataError: the account has no home folder, and the variable is not set.
        MissingDependencyError: the package that knows the folder is not installed.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen)
    require({"platformdirs": "platformdirs"}, f"find the {kind} folder", "train")
    import platformdirs

    try:
        found = platformdirs.user_cache_path("semcut") if kind == "cache" else platformdirs.user_data_path("semcut")
    except (RuntimeError, OSError):
        found = None
    if found is None or not found.is_absolute():
        raise DataError(f"this account has no home folder for the {kind} of semcut: set {variable} to a folder")
    return found
