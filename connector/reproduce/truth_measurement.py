"""`TruthMeasurement`: the figures of one network on a set with ground truth, and the file that stores them.

    OUT/FORM/NETWORK/figures.json

NETWORK is the name of the run directory, followed by the first 8 digits of the SHA-256 of the weights. The file may
come from someone else: every value has a type and a range, and lists have the lengths that the queries and cutoffs
give. Whether figures are true cannot be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from semcut.connector.evaluation.judged_rankings import JUDGED_RANKINGS, JudgedRanking
from semcut.connector.evaluation.rankings import CUTOFFS
from semcut.connector.ground_truth import TruthForm
from semcut.connector.reproduce.query_times import WAYS, Way
from semcut.connector.reproduce.stored_facts import require_settings
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import read_json
from semcut.indexes.search_params import Ranking
from semcut.indexes.storage.atomic_write import write_file

TRUTH_FILE = "figures.json"

MOST_BYTES = 64 << 20
"""The largest file of figures."""

_Count = Annotated[int, Field(ge=0, le=1 << 48)]
_Share = Annotated[float, Field(ge=-1e-9, le=1 + 1e-9)]
_Figure = _Share | None
_Time = Annotated[float, Field(ge=0, le=1e9)]
_Text = Annotated[str, StringConstraints(max_length=4096)]
_Level = Annotated[str, StringConstraints(max_length=100)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Chosen(_Facts):
    """What calibration by copies chose for the index of a network, see `Calibration`."""

    cutoff: float | None
    ranking: Ranking
    shortlist: Annotated[int, Field(ge=1, le=1_000_000)] | None
    lost: _Share
    scanned: _Share
    fits: bool
    images: _Count

    @property
    def defaults(self) -> SearchDefaults:
        """The defaults of searches that follow."""
        return SearchDefaults(self.cutoff, self.ranking, self.shortlist)


class TruthMeasurement(_Facts):
    """The figures of one network on one set.

    Attributes:
        form: of the ground truth.
        sentence: how much of the set is there, see `Coverage.sentence`.
        about: `name` and `sha256` of the network, and its number of `classes`; of a network that semcut trained also
            `architecture`, `config`, `weights` and `start`, see `Measurement.about`.
        records, trained: number of records, and of images that were left out because the network was trained on them.
        first_four: whether published figures of this set are the N-S score.
        queries: names of nq queries.
        landmarks: what each query shows; the name of the query where the set has no landmarks.
        curves: AP@all by level and ranking, for each of `rankings.CUTOFFS` and each query; None for a query without a
            relevant record at this level.
        relevant, scanned: shares of the records for each cutoff, see `JudgedCurves`.
        chosen: what calibration chose; a text that says why it could not.
        searches: by level and search of `compare_searches`: the means mAP@all, mAP@10 and N-S score. The search "index"
            has the defaults that calibration chose.
        times: milliseconds per query, in a batch and alone, see `query_times`.
        machine: where they were measured.
    """

    form: TruthForm
    sentence: _Text
    about: dict[str, Any]
    records: _Count
    trained: _Count
    first_four: bool
    queries: list[_Text]
    landmarks: list[_Text]
    curves: dict[_Level, dict[JudgedRanking, list[list[_Figure]]]]
    relevant: list[_Share]
    scanned: list[_Share]
    chosen: Chosen | _Text
    searches: dict[_Level, dict[_Text, tuple[_Figure, _Figure, Annotated[float, Field(ge=0, le=4)] | None]]]
    times: dict[Way, tuple[_Time, _Time]]
    machine: _Text

    @model_validator(mode="after")
    def _check(self) -> TruthMeasurement:
        cutoffs, about = len(CUTOFFS), self.about
        if not all(isinstance(about[name], str) and len(about[name]) <= 4096 for name in ("name", "sha256")):
            raise ValueError("it does not name its network")
        if type(about["classes"]) is not int or not 1 <= about["classes"] <= 1 << 48:
            raise ValueError("it has no number of classes")
        if "config" in about:
            require_settings(about)
        if not self.queries or len(self.landmarks) != len(self.queries) or not self.curves:
            raise ValueError("it has no queries, or not a landmark for each")
        if self.searches.keys() != self.curves.keys():
            raise ValueError("its levels differ")
        for rankings in self.curves.values():
            if not rankings.keys() >= {*JUDGED_RANKINGS} - {"fused"}:
                raise ValueError("a ranking is missing")
            for at_all in rankings.values():
                if len(at_all) != cutoffs or any(len(row) != len(self.queries) for row in at_all):
                    raise ValueError("a ranking has not a figure for each cutoff and query")
        if len(self.relevant) != cutoffs or len(self.scanned) != cutoffs or self.times.keys() != {*WAYS}:
            raise ValueError("a share or a time is missing")
        return self

    @property
    def name(self) -> str:
        """The name of the network."""
        return str(self.about["name"])

    def figures(self, level: str, ranking: JudgedRanking) -> NDArray[np.float64]:
        """Return AP@all of a ranking: (t, nq) float64, nan for a query without a relevant record at this level."""
        return np.array(self.curves[level][ranking], np.float64)  # None becomes nan

    def save(self, file: Path) -> None:
        """Write the measurement to a file, in one step."""
        write_file(file, self.model_dump_json() + "\n")

    @staticmethod
    def load(file: Path) -> TruthMeasurement:
        """Read a measurement that `save` wrote.

        Raises:
            DataError: the file is damaged, or has figures of another network or form than its path says.
        """
        try:
            content = read_json(file, MOST_BYTES)
            if not isinstance(content, Mapping):
                raise ValueError("it has no object")
            found = TruthMeasurement.model_validate({**content, "times": _pairs(content["times"]),
                                                     "searches": _searches(content["searches"])})  # fmt: skip
        except ValidationError as error:
            raise _damaged(file, str(error.errors()[0]["msg"])) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(file, str(getattr(error, "strerror", None) or error)) from None
        for what, given, path in (("network", found.name, file.parent), ("form", found.form, file.parent.parent)):
            if given != path.name:
                raise DataError(f"{file} has the figures of the {what} {shown(given)}, expected {path.name}: delete it")
        return found


def _pairs(times: Any) -> dict[str, tuple[Any, ...]]:
    """Return lists as the tuples that they were before JSON."""
    return {way: tuple(values) for way, values in times.items()}


def _searches(searches: Any) -> dict[str, dict[str, tuple[Any, ...]]]:
    return {level: _pairs(values) for level, values in searches.items()}


def _damaged(file: Path, reason: str) -> DataError:
    return DataError(f"{file} cannot be read ({shown(reason)}): delete it, and the network is measured again")
