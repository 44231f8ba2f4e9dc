"""Find the complete results of a run, and limit their size: a report of any run takes seconds, not hours.

The directory of a run may come from someone else, and a small file can hold millions of numbers. So the numbers that a
report reads are counted from the plan and the methods, before any array is read. A run counts them before it measures
anything, so no results are made that the report refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semcut.connector.benchmark.datasets.data_origin import require_same
from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask
from semcut.connector.benchmark.datasets.run_folders import require_directories
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts
from semcut.connector.benchmark.measure.ground_truth import MOST_POINTS
from semcut.connector.benchmark.measure.raw_results import REPEAT
from semcut.connector.benchmark.measure.run_plan import Plan, different
from semcut.connector.benchmark.methods.grids import structures
from semcut.indexes.errors import DataError

MOST_DATASETS = 50
"""The most data sets of a run; a report draws up to six plots of each."""
MOST_NUMBERS = 200_000_000
"""The most numbers of a run, see `_numbers`. All methods with the default plan have 6 million for a data set."""
_ARRAY = 1000
"""The numbers that an array counts as, besides its own: it takes time to open."""
_ARRAYS = 9
"""The most arrays of a method, without those of its times."""


def complete_results(out: Path, plan: Plan) -> dict[Path, DatasetFacts]:
    """Find the complete results in the directory of a run, by directory, in the order of their names.

    Args:
        out: the directory of the run.
        plan: its plan.

    Raises:
        DataError: a folder is a link; results are damaged, or of another plan; or there is more than a run may have.
    """
    require_directories(out)
    found: dict[Path, DatasetFacts] = {}
    for directory in sorted((out / "raw").glob("*")):
        facts = DatasetFacts.read(directory)
        if facts is None:
            continue
        changes = different(facts.plan, plan)
        if changes:
            raise DataError(f"{directory} was measured with {changes} as in the plan of the run: {REPEAT}")
        found[directory] = facts
        _check_size(out, plan, [len(facts.methods) for facts in found.values()])
    return found


def missing_tasks(out: Path, tasks: Sequence[DatasetTask], plan: Plan) -> list[DatasetTask]:
    """Return the tasks without complete results.

    Args:
        out: the directory of the run.
        tasks: all data sets of the run.
        plan: its plan.

    Raises:
        DataError: as for `complete_results`, counting what the missing results will have; complete results are of
            other data or of another grid; or the plan chooses no method.
    """
    complete = complete_results(out, plan)
    missing = []
    for task in tasks:
        facts = complete.get(out / "raw" / task.name)
        if facts is None:
            missing.append(task)
        else:
            found = {**facts.about.model_dump(), "grid": facts.grid}
            require_same(out / "raw" / task.name, found, {**task.wanted, "grid": task.grid})
    counts = {
        grid: sum(len(one.methods()) for one in structures(grid, plan.methods)) for grid in {x.grid for x in missing}
    }
    methods = [len(facts.methods) for facts in complete.values()]
    _check_size(out, plan, [*methods, *(counts[task.grid] for task in missing)])
    return missing


def _check_size(out: Path, plan: Plan, methods: Sequence[int]) -> None:
    """Raise `DataError` if data sets with these numbers of methods are too much for one run."""
    if len(methods) > MOST_DATASETS:
        raise DataError(f"{out} would have more than {MOST_DATASETS} data sets with results: use several directories")
    total = sum(_numbers(plan, count) for count in methods)
    if total > MOST_NUMBERS:
        raise DataError(
            f"the results in {out} count as {total:,} numbers (data sets: {len(methods)}, methods of all: "
            f"{sum(methods)}, queries: {plan.queries:,}, answers to each: {plan.k}), expected at most "
            f"{MOST_NUMBERS:,}: use several directories, or fewer methods"
        )


def _numbers(plan: Plan, methods: int) -> int:
    """Count the answers of all methods and of all exact searches, and the timed calls; an array counts as `_ARRAY`."""
    answers, arrays = plan.queries * plan.k, _ARRAYS + 2 * len(plan.batches)
    return MOST_POINTS * answers + methods * (answers + sum(plan.most_calls.values()) + arrays * _ARRAY)
