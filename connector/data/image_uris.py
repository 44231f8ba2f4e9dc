"""Turn the uri that an index stores for an image into the path of its file, and back. No other module does that.

An index whose link names a root (see `retrieval.model_link`) keeps uris relative to it, such as `cats/1.jpg`, so that
its images can be moved. A uri that is stored as an absolute path stays as it is; so does every uri of an index without
a root. A uri may come from someone else: one with a part `..`, or any other that is not plain, is never put below the
root, and stays as it is, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

_NOT_PLAIN = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|\0")
"""An empty part (also in front of an absolute path, and in `s3://`), a part `.` or `..`, or a byte of zero."""


def common_root(roots: Sequence[str]) -> str | None:
    """Return the folder to which the uris of images in these folders are relative; None if there is none.

    Args:
        roots: the folders. If one of them is not an absolute path, or they have only `/` in common, there is no root.
    """
    if not roots or not all(map(os.path.isabs, roots)):
        return None
    root = os.path.normpath(os.path.commonpath(roots))
    return None if ".." in "/".join(roots).split("/") or root.strip("/") == "" else root


def path_of(uri: str | None, root: str | None) -> str | None:
    """Return the path of the file that a stored uri names; None for a record without a uri. See also `paths_of`."""
    if uri is None or root is None or _NOT_PLAIN.search(uri):
        return uri
    return f"{root}/{uri}"


def paths_of(uris: Iterable[str | None], root: str | None) -> list[str | None]:
    """Return the path of the file that each stored uri names, see `path_of`."""
    return list(uris) if root is None else [path_of(uri, root) for uri in uris]


def uri_of(path: str, root: str | None) -> str:
    """Return the uri that an index with this root stores for a file.

    Args:
        path: the path of the file; of a relative one, the current folder is the beginning.
        root: the root of the index; None keeps the path as it is given.
    """
    if root is None:
        return path
    if not path.startswith("/"):
        path = f"{os.getcwd()}/{path}"
    if _NOT_PLAIN.search(path[1:]) and ".." not in path.split("/"):  # with "..", the path could lead through a link
        path = os.path.normpath(path)
    return canonical_uri(below_root(path, root), root)


def below_root(path: str, root: str) -> str:
    """Return an absolute path as one below the root, if its folder is the root or in it by another way.

    Such a way leads through links, or has parts `..`. So a file has one uri, however a user comes to its folder.
    """
    folder, _, name = path.rpartition("/")
    if f"{folder}/".startswith(f"{root}/") and ".." not in folder.split("/"):
        return path
    try:
        real, real_root = os.path.realpath(folder or "/"), os.path.realpath(root)
    except (OSError, ValueError):  # ValueError: a byte of zero
        return path
    return f"{root}{real[len(real_root) :]}/{name}" if f"{real}/".startswith(f"{real_root}/") else path


def canonical_uri(uri: str, root: str | None) -> str:
    """Return the one uri that stands for all stored uris of the same path: relative, if the path is below the root."""
    if root is None or not uri.startswith(f"{root}/"):
        return uri
    below = uri[len(root) + 1 :]
    return uri if _NOT_PLAIN.search(below) else below
