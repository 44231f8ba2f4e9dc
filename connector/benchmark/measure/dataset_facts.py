"""Describe the run of one data set: everything that is recorded in addition to the arrays, in `dataset.json`.

`dataset.json` is written last: a directory with this file holds all raw results of a data set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from semcut.connector.benchmark.datasets.dataset import About
from semcut.connector.benchmark.measure.machine import Machine
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.methods.grids import Grid
from semcut.connector.benchmark.methods.structures import Parameters
from semcut.indexes.errors import DataError, SemcutError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import write_json

_FILE = "dataset.json"


@dataclass(frozen=True)
class StructureFacts:
    """The cost of building and of storing a structure.

    Attributes:
        build_seconds: time to build it.
        memory_bytes: private memory of the process after building, minus that before building.
        memory_peak: the most private memory of the process while building, minus that before building.
        disk_bytes: bytes on the disk.
        reader_memory_bytes: private memory of an index that is opened from the disk, after a batch of searches; None
            for FAISS's indexes.
        reader_mapped_bytes: bytes of the mapped pages of that index; None for FAISS's indexes.
    """

    build_seconds: float
    memory_bytes: int
    memory_peak: int
    disk_bytes: int
    reader_memory_bytes: int | None = None
    reader_mapped_bytes: int | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the figures that are known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class MethodFacts:
    """The recorded description of a method: see `Method`; `file` is the name of the file with its arrays."""

    name: str
    family: str
    parameters: Parameters
    structure: str
    reranks: bool
    file: str


@dataclass(frozen=True)
class DatasetFacts:
    """The description of the run of a data set.

    Attributes:
        about: description of the data set.
        grid: name of the grid of methods that searched it, see `grids`.
        plan: the plan of the run.
        machine: the machine, described at the end of the run.
        started, finished: seconds since the epoch.
        partitions: partitions of semcut's index that hold records.
        cells: cells of semcut's index that hold records.
        column_bytes: bytes of each column of semcut's index.
        feature_bytes: bytes of the features that a re-rank of FAISS's results reads.
        exact_queries: number of queries with exact answers, by cutoff and ranking, as "0.2 distance".
        structures: costs of each structure, by name.
        methods: the methods.
    """

    about: About
    grid: Grid
    plan: Plan
    machine: Machine
    started: float
    finished: float
    partitions: int
    cells: int
    column_bytes: dict[str, int]
    feature_bytes: int
    exact_queries: dict[str, int]
    structures: dict[str, StructureFacts]
    methods: tuple[MethodFacts, ...]

    def write(self, directory: Path) -> None:
        """Write `dataset.json` in one step, which marks the results in the directory as complete."""
        content = {field.name: getattr(self, field.name) for field in fields(self)} | {
            "about": self.about.model_dump(),
            "plan": self.plan.model_dump(mode="json"),
            "machine": asdict(self.machine),
            "structures": {name: facts.as_dict() for name, facts in self.structures.items()},
            "methods": [asdict(method) for method in self.methods],
        }
        write_json(directory / _FILE, content)

    @staticmethod
    def read(directory: Path) -> DatasetFacts | None:
        """Read `dataset.json`; None if the directory has none, and so no complete results.

        Raises:
            DataError: the file has other content.
        """
        path = directory / _FILE
        try:
            content: Any = read_json(path)
        except (OSError, ValueError):
            return None
        try:
            return DatasetFacts(
                **content
                | {
                    "about": About(**content["about"]),
                    "plan": Plan(**content["plan"]),
                    "machine": Machine(**content["machine"]),
                    "structures": {name: StructureFacts(**facts) for name, facts in content["structures"].items()},
                    "methods": tuple(MethodFacts(**method) for method in content["methods"]),
                }
            )
        except (KeyError, TypeError, AttributeError, SemcutError) as error:
            raise DataError(
                f"{path} does not describe the results of a benchmark ({error}): delete {directory}, and the next run "
                "measures it again"
            ) from None
