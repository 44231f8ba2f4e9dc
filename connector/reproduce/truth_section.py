"""Write the sections of a page of results about sets with ground truth, and the files that belong to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from semcut.connector.ground_truth import TruthForm
from semcut.connector.reproduce import csv_files, judged_tables, quality_plots
from semcut.connector.reproduce.judged_tables import Groups, truth_groups
from semcut.connector.reproduce.markdown_text import plain
from semcut.connector.reproduce.results_folder import PAGE_FILES
from semcut.connector.reproduce.truth_measurement import TRUTH_FILE, TruthMeasurement
from semcut.indexes.errors import DataError

MOST_NETWORKS, MOST_BYTES = 200, 256 << 20
"""The most networks with figures of sets in a directory of results, and the most bytes of their figures."""

_CONVENTIONS = """\
Sets with ground truth: average precision is computed as the programs of a set do it, and junk is taken out of an answer
before it is judged. The network's training images are not in the index. Rankings have no shortlist; for records at the
same Hamming distance, AP is the mean over all their orders. A relevant record whose R is not above the cutoff t counts
as missed, except in searches of the index, whose places are filled. Times are those of one network of each group.
"""


def truths_in(out: Path) -> dict[TruthForm, list[TruthMeasurement]]:
    """Read the measurements on sets with ground truth in a directory of results, by form.

    Raises:
        DataError: a file is damaged, or there are more networks or bytes than a page may have.
    """
    files = {form: sorted((out / form).glob(f"*/{TRUTH_FILE}")) for form in get_args(TruthForm)}
    every = [file for found in files.values() for file in found]
    size = sum(os.lstat(file).st_size for file in every)
    if len(every) > MOST_NETWORKS or size > MOST_BYTES:
        raise DataError(
            f"{out} has figures of {len(every):,} networks on sets, of {size:,} bytes, expected at most "
            f"{MOST_NETWORKS:,} and {MOST_BYTES:,}: use several directories"
        )
    return {form: [TruthMeasurement.load(file) for file in found] for form, found in files.items() if found}


def truth_sections(
    out: Path, measured: Mapping[TruthForm, Sequence[TruthMeasurement]]
) -> tuple[list[str], dict[Path, bytes | str]]:
    """Write the sections, as a list of paragraphs, and the contents of the files that belong to them.

    Raises:
        DataError: two networks have the same settings and seed.
    """
    if not measured:
        return [], {}
    sets: dict[str, Groups] = {form: truth_groups(networks) for form, networks in measured.items()}
    parts, files = [_CONVENTIONS.strip()], dict[Path, bytes | str]()
    for form, groups in sets.items():
        best, first = judged_tables.best_group(groups), groups[0].members[0]
        counts = sorted({member.records for group in groups for member in group.members})
        records = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        files |= {
            out / form / PAGE_FILES[0]: csv_files.truth_csv(measured[form]),  # type: ignore[index]
            out / form / PAGE_FILES[-1]: quality_plots.truth_fig4(best, judged_tables.levels(groups)[0]),
        }
        parts += [
            f"## {form}",
            plain(
                f"{first.sentence}; {records} records{_left_out(groups)}, {len(first.queries):,} queries. "
                f"{first.machine}."
            ),
        ]
        for level in judged_tables.levels(groups):
            parts += [
                judged_tables.landmarks(groups, level).markdown(),
                judged_tables.cutoffs(best, level).markdown(),
                judged_tables.calibrated(groups, level).markdown(),
            ]
        parts.append(f"![mAP and shares of the records against the cutoff]({form}/{PAGE_FILES[-1]})")
    return [*parts, "## Time by set and number of categories", judged_tables.times(sets).markdown()], files


def _left_out(groups: Groups) -> str:
    """Say how many images are not in an index because its network was trained on them."""
    most = max(member.trained for group in groups for member in group.members)
    return f", without the {most:,} images that a network was trained on" if most else ""
