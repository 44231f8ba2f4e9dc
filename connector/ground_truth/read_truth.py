"""Read ground truth of any form by its name.

Where the names of the images are the ground truth, there is nothing else to read; all other forms are files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import get_args

from semcut.connector.data.file_arguments import files_given
from semcut.connector.ground_truth import TruthForm
from semcut.connector.ground_truth.judged_queries import GroundTruth, stem_of
from semcut.connector.ground_truth.name_groups import holidays_groups, ukbench_groups
from semcut.connector.ground_truth.oxford_files import read_oxford_files
from semcut.connector.ground_truth.revisited_json import read_revisited_json
from semcut.connector.ground_truth.truth_tables import read_truth_table
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import InvalidParameterError, shown


def read_ground_truth(
    form: TruthForm, source: str | os.PathLike[str] | None, files: Iterable[str | os.PathLike[str]] = ()
) -> GroundTruth:
    """Read the ground truth of a set.

    Args:
        form: its form, see `semcut.connector.ground_truth`.
        source: the folder of text files (oxford5k, paris6k), the JSON file (roxford5k, rparis6k) or the table (csv);
            None for holidays and ukbench.
        files: the images of the set, whose names are the ground truth of holidays and ukbench.

    Raises:
        DataError: the source cannot be read or has another form, or the images have other names.
        InvalidParameterError: no form has this name, or a source is missing or is not needed.
    """
    if not isinstance(form, str) or form not in get_args(TruthForm):
        raise InvalidParameterError(f"form = {shown(form)}, expected {', '.join(get_args(TruthForm))}")
    paths = files_given("files", files)
    if form == "holidays" or form == "ukbench":
        if source is not None:
            raise InvalidParameterError(
                f"source = {shown(source)}, expected none: the ground truth of {form} are the names of its images"
            )
        stems = map(stem_of, paths)
        return holidays_groups(stems) if form == "holidays" else ukbench_groups(stems)
    if source is None:
        raise InvalidParameterError(f"source = None, expected a path: {form} has its ground truth in files")
    path = os.path.expanduser(possible_path_given("source", source))
    if form == "csv":
        return read_truth_table(path)
    if form == "oxford5k" or form == "paris6k":
        return read_oxford_files(form, path)
    return read_revisited_json(form, path)
