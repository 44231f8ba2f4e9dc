"""Read the ground truth of Oxford 5k and Paris 6k: four small text files for each query in one folder.

    all_souls_1_query.txt    the image and the box of the query: oxc1_all_souls_000013 136.5 34.1 648.5 955.7
    all_souls_1_good.txt     the names of images that show the building well, one a line
    all_souls_1_ok.txt       images that show more than a quarter of it
    all_souls_1_junk.txt     images that show less: ignored

Good and ok images are relevant. The prefix `oxc1_` is not part of the name. The query is an image of the set, and
counts as found, since the files list it as good.

Source: Philbin, Chum, Isard, Sivic and Zisserman, "Object retrieval with large vocabularies and fast spatial matching"
(CVPR 2007), "Lost in quantization" (CVPR 2008).
"""

from __future__ import annotations

import os
from typing import Literal

from semcut.connector.data.image_folders import Skipped
from semcut.connector.ground_truth.judged_queries import ALL, GroundTruth, Judgement, Query, judgement, parsed_box
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import read_bytes

PUBLISHED = {"oxford5k": (55, 5062), "paris6k": (55, 6392)}
"""Numbers of queries and of images that can be read; Paris has 20 more files that are broken."""

MAX_FILE_BYTES, MAX_FILES, MAX_BYTES = 1 << 20, 100_000, 1 << 28
"""The largest file, the most files of a folder, and the most bytes of all."""

_QUERY, _PREFIX = "_query.txt", "oxc1_"


def read_oxford_files(form: Literal["oxford5k", "paris6k"], folder: str) -> GroundTruth:
    """Read the files of all queries.

    Args:
        form: the set.
        folder: the folder of the files; other files in it are not read.

    Returns:
        The ground truth. A query of which a file is missing is left out.

    Raises:
        DataError: the folder has no query, or a file cannot be read or has another form.
    """
    names = _names(folder)
    stems = sorted(name.removesuffix(_QUERY) for name in names if name.endswith(_QUERY) and name != _QUERY)
    if not stems:
        raise DataError(
            f"{folder} has no ground truth of {form}: expected files such as all_souls_1_query.txt, and _good, _ok "
            "and _junk beside each"
        )
    reader = _Reader(folder)
    queries: list[Query] = []
    judgements: list[Judgement] = []
    left_out: list[Skipped] = []
    for stem in stems:
        missing = [f"{stem}_{kind}.txt" for kind in ("good", "ok", "junk") if f"{stem}_{kind}.txt" not in names]
        if missing:
            left_out.append((stem, f"{' and '.join(missing)} missing beside its query"))
            continue
        source = os.path.join(folder, f"{stem}{_QUERY}")
        words = " ".join(reader.lines(f"{stem}{_QUERY}")).split()
        if len(words) != 5:
            raise DataError(f"{source} holds {shown(' '.join(words))}, expected the name of an image and four numbers")
        queries.append(Query(stem, words[0].removeprefix(_PREFIX), parsed_box(words[1:], source)))
        good, fair, junk = (reader.lines(f"{stem}_{kind}.txt") for kind in ("good", "ok", "junk"))
        judgements.append(judgement(stem, [*good, *fair], junk, folder))
    return GroundTruth(
        form, tuple(queries), {ALL: tuple(judgements)}, published=PUBLISHED[form], left_out=tuple(left_out)
    )


def _names(folder: str) -> set[str]:
    """List the names of the files in a folder."""
    found: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.add(entry.name)
                if len(found) > MAX_FILES:
                    raise DataError(f"{folder} has more than {MAX_FILES:,} files: give the folder of the ground truth")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read the ground truth {shown(folder)}: {reason}; expected a folder of text files"
        ) from None
    return found


class _Reader:
    """Reads small text files of a folder, and bounds what all of them hold."""

    def __init__(self, folder: str) -> None:
        self._folder, self._bytes = folder, 0

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file that are not empty, without spaces around them."""
        path = os.path.join(self._folder, name)
        try:
            content = read_bytes(path, MAX_FILE_BYTES, follow=True)
            text = content.decode()
        except UnicodeDecodeError:
            raise DataError(f"cannot read {path}: it is not text in UTF-8") from None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        self._bytes += len(content)
        if self._bytes > MAX_BYTES:
            raise DataError(f"the files of the ground truth in {self._folder} hold more than {MAX_BYTES:,} bytes")
        return [line.strip() for line in text.splitlines() if line.strip()]
