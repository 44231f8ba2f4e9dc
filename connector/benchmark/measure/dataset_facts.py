"""Describe the run of one data set: everything that is recorded in addition to the arrays, in `dataset.json`.

`dataset.json` is written last: a directory with this file holds all raw results of a data set. The file may come from
someone else, so its types, and the lengths of its texts and lists, are checked when it is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from semcut.connector.benchmark.datasets.dataset import About, Count, Text
from semcut.connector.benchmark.measure.machine import Machine
from semcut.connector.benchmark.measure.raw_results import LONGEST, REPEAT, SHORTEST, file_name
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.methods.grids import Grid
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.indexes.config import plain_reason
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import write_json

_FILE = "dataset.json"
MOST_METHODS = 500
"""The most methods of a data set; the largest grid has fewer than 300."""
_FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)

Seconds = Annotated[float, Field(ge=0, le=1e12)]
Duration = Annotated[float, Field(ge=SHORTEST, le=LONGEST)] | Annotated[float, Field(ge=0, le=0)]
"""Seconds that something took; 0 if that was too short to measure."""
Growth = Annotated[int, Field(ge=-(1 << 48), le=1 << 48)]
"""Bytes by which memory has grown, or has become less."""
_Parameters = Annotated[
    dict[Text, Count | Annotated[float, Field(ge=-1e12, le=1e12)] | Text | None], Field(max_length=20)
]


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

    __pydantic_config__ = _FORBID

    build_seconds: Duration
    memory_bytes: Growth
    memory_peak: Growth
    disk_bytes: Count
    reader_memory_bytes: Growth | None = None
    reader_mapped_bytes: Growth | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the figures that are known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class MethodFacts:
    """The recorded description of a method: see `Method`; `file` is the name of the file with its arrays."""

    __pydantic_config__ = _FORBID

    name: Text
    family: Text
    parameters: _Parameters
    structure: Text
    reranks: bool
    file: Text

    @property
    def of_semcut(self) -> bool:
        """Whether it is one of semcut's methods, whose parameters are a `SearchPoint`."""
        return "cutoff" in self.parameters


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

    __pydantic_config__ = _FORBID

    about: About
    grid: Grid
    plan: Plan
    machine: Machine
    started: Seconds
    finished: Seconds
    partitions: Count
    cells: Count
    column_bytes: Annotated[dict[Text, Count], Field(max_length=100)]
    feature_bytes: Count
    exact_queries: Annotated[dict[Text, Count], Field(max_length=1000)]
    structures: Annotated[dict[Text, StructureFacts], Field(max_length=1000)]
    methods: Annotated[tuple[MethodFacts, ...], Field(min_length=1, max_length=MOST_METHODS)]

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
            DataError: the file cannot be read, or has other content.
        """
        path = directory / _FILE
        try:
            content: Any = read_json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{path} cannot be read ({why}): {REPEAT}") from None
        try:
            facts = _FACTS.validate_python(content)
            reason = facts._contradiction()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part)[:60] for part in first["loc"][:3])
            reason = f"{place} = {shown(first['input'])}: {plain_reason(first['msg'])}"
        if reason:
            raise DataError(f"{path} does not describe the results of a benchmark ({reason}): {REPEAT}")
        return facts

    def _contradiction(self) -> str:
        """Say what in it contradicts something else; empty if nothing does."""
        names = [method.name for method in self.methods]
        for method in self.methods:
            if method.file != file_name(method.name):
                return f"the file of {shown(method.name)} is {shown(method.file)}, expected {file_name(method.name)}"
            if method.structure not in self.structures:
                return f"{shown(method.name)} searches {shown(method.structure)}, which is not among the structures"
        if len(set(names)) < len(names):
            return "two methods have the same name"
        files: dict[str, str] = {}
        for method in self.methods:
            other = files.setdefault(method.file.casefold(), method.name)  # the same file on disks that ignore case
            if other != method.name:
                return f"{shown(other)} and {shown(method.name)} have the same file, {shown(method.file)}"
        try:
            for method in self.methods:
                if method.of_semcut:
                    SearchPoint.of(method.parameters)
        except DataError as error:
            return str(error)
        return ""


_FACTS = TypeAdapter(DatasetFacts)
