"""The JSON of requests and responses of the HTTP API.

Names of fields are public. Ids are sent as texts: numbers in JavaScript are exact up to 2^53 only, and ids go up to
2^63 - 1. A record of an index whose ids are strings has such a number, too, besides its string, the `key`. Users read
docstrings and descriptions of this module at /docs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from semcut.indexes.keys import MAX_KEY
from semcut.indexes.search_params import Ranking

MAX_K, MAX_SHORTLIST = 500, 100_000
MAX_WHERE, MAX_COMPARISONS = 10_000, 100
"""The longest filter, in characters, and its largest number of comparisons: each looks at all records."""

MAX_UPLOAD = 16 << 20
"""Size of the largest image that can be a query, in bytes of the decoded file."""

_DEFAULT_K = 12
"""Default number of results per query: twelve fill whole rows of the page at its usual widths."""

Id = Annotated[str, Field(description="Id of a record, a whole number from 0 to 2^63 - 1.", pattern=r"^\d{1,19}$")]
Key = Annotated[
    str,
    Field(
        description="The id of a record of an index whose ids are strings.",
        min_length=1,
        max_length=MAX_KEY,
        pattern=r"^[^\x00]+$",
    ),
]
_OWN_KEY = "The id as a string; null if the ids of the index are integers."
RecordNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ErrorMessage(_Message):
    """A sentence that says why a request failed."""

    error: str


class SearchRequest(_Message):
    """A search for records similar to a record, given by `id` or `key`, or to an `image`, a file in base64."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("id", "key", "image")]},
    )

    id: RecordNumber | None = None
    key: Key | None = None
    image: Base64Bytes | None = Field(default=None, max_length=MAX_UPLOAD)
    k: int = Field(default=_DEFAULT_K, ge=1, le=MAX_K, description="Number of records to find.")
    cutoff: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Records whose relevance is above this value are relevant; by default that of the index.",
    )
    no_cutoff: bool = Field(default=False, description="Search without a cutoff: every record counts.")
    shortlist: int | Literal["own"] | None = Field(
        default="own",
        description="Number of records, nearest by hash code, to re-rank, at most "
        f"{MAX_SHORTLIST:,}; null re-ranks every relevant record; by default that of the index, and at least k.",
    )
    ranking: Ranking | None = Field(default=None, description="Order of the records; by default that of the index.")
    fill: bool = Field(default=True, description="Fill places that relevant records leave with the best of the others.")
    exclude_self: bool = Field(
        default=False, description="Leave the record with this `id` or `key` out of the results."
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="How much the records shall differ from one another; 0: not at all.",
    )
    where: str | None = Field(
        default=None,
        max_length=MAX_WHERE,
        description="Filter: only records whose attributes match are searched, such as `price < 20 and sold == false`; "
        f"at most {MAX_COMPARISONS} comparisons.",
    )
    explain: bool = Field(default=False, description="Also return what pruning left of each partition.")
    compare: bool = Field(default=False, description="Also compare the query with every record, which is slow.")

    @model_validator(mode="after")
    def _check(self) -> SearchRequest:
        if [self.id, self.key, self.image].count(None) != 2:
            raise ValueError("give an id, a key or an image, one of them")
        if self.no_cutoff and self.cutoff is not None:
            raise ValueError("give a cutoff or no_cutoff, not both")
        if self.exclude_self and self.image is not None:
            raise ValueError("exclude_self is for a record: give an id or a key, or no exclude_self")
        if self.compare and self.diversity:
            raise ValueError("compare is for the best records: give it without diversity")
        if isinstance(self.shortlist, int) and not 1 <= self.shortlist <= MAX_SHORTLIST:
            raise ValueError(f"shortlist = {self.shortlist}, expected 1 to {MAX_SHORTLIST}")
        if isinstance(self.shortlist, int) and self.shortlist < self.k:
            raise ValueError(f"a shortlist of {self.shortlist} cannot give k = {self.k} records")
        return self


AttributeValue = bool | int | float | str | list[str] | None
"""The value of an attribute: of a datetime, text in ISO 8601; of an integer beyond 2^53, its digits as text."""


class ClassProbability(_Message):
    """A class, and its probability according to the network."""

    partition: int
    name: str
    probability: float


class Record(_Message):
    """A record. It is in the partition of its most probable class."""

    id: Id
    key: str | None = Field(description=_OWN_KEY)
    uri: str | None
    classes: list[ClassProbability] = Field(description="The most probable classes; the first is its partition.")
    attributes: dict[str, AttributeValue] = Field(
        description="Attributes by name; null: missing. An integer beyond 2^53, and a datetime, is text."
    )


class QueryRecord(_Message):
    """The query of a search. It has an id only if it is a record of the index."""

    id: Id | None
    key: str | None = Field(description=_OWN_KEY)
    uri: str | None
    classes: list[ClassProbability]
    attributes: dict[str, AttributeValue] = Field(description="As those of a record; none of an image.")


class FoundRecord(_Message):
    """A record that a search found, and how it compares with the query."""

    record: Record
    distance: float = Field(description="Euclidean distance of features.")
    relevance: float = Field(description="Probability that record and query have the same class, Eq. 1.")
    score: float | None = Field(description="Fused score, Eq. 4; null if the features do not have length 1.")
    hamming: int = Field(description="Hamming distance of hash codes, in bits.")
    filled: bool = Field(description="Whether the record is not relevant, and only fills a place.")


class SearchWork(_Message):
    """What a search has scanned, and how long the search took."""

    records: int = Field(description="Records in the index.")
    partitions: int = Field(description="Partitions that were scanned.")
    cells: int = Field(description="Cells that were scanned.")
    codes: int | None = Field(description="Records in these cells; null if the server does not count them.")
    cut_off: int = Field(description="Records that were scored and found not relevant.")
    milliseconds: float = Field(description="Duration of the search alone, without reading images and records.")


class PartitionPruning(_Message):
    """What pruning left of a partition."""

    partition: int
    name: str
    records: int
    cells: int
    bound: float = Field(description="Upper bound: no record of the partition has a larger relevance.")
    kept_cells: int = Field(description="Cells that were not pruned.")
    kept_records: int | None = Field(description="Records in these cells; null if the server does not count them.")


class ExhaustiveResults(_Message):
    """The k best relevant records, found by comparing the query with every record."""

    hits: list[FoundRecord]
    same: bool = Field(description="Whether the search found the same records in the same order.")
    missing: list[Id] = Field(description="Records that the search did not find.")
    milliseconds: float = Field(description="Duration of the comparison.")


class SearchResponse(_Message):
    """The records that a search found, best first, and what the search has scanned."""

    query: QueryRecord
    hits: list[FoundRecord]
    done: SearchWork
    version: str = Field(description="Version of the index; every change makes a new one.")
    partitions: list[PartitionPruning] | None = Field(
        description="Partitions that hold records, largest bound first, without regard to `where`; null without "
        "`explain`."
    )
    compared: ExhaustiveResults | None = Field(description="Comparison with every record; null without `compare`.")


class PartitionSummary(_Message):
    """A partition: the records with the same most probable class."""

    partition: int
    name: str
    records: int
    cells: int
    confidence: float | None = Field(
        description="Mean probability of the most probable class, over some records; null if there are no records."
    )
    sample: list[Id] = Field(description="Some records, spread evenly over the partition.")


class PartitionList(_Message):
    """Partitions that hold records, largest first."""

    total: int
    partitions: list[PartitionSummary]


class PartitionMembers(_Message):
    """Records of a partition."""

    partition: int
    name: str
    total: int = Field(description="Records in the partition.")
    records: list[Record]


class RandomRecords(_Message):
    """Records chosen at random."""

    records: list[Record]


class IndexSummary(_Message):
    """The size of the index, and which requests it can answer."""

    records: int
    removed: int = Field(description="Records that were removed and take space until the index is compacted.")
    partitions: int = Field(description="Partitions that hold records.")
    cells: int
    classes: list[str] = Field(description="Names of the classes, in the order of the probabilities.")
    bits: int = Field(description="Length of a hash code.")
    dim: int = Field(description="Length of a feature.")
    normalised: bool = Field(description="Whether features have length 1, which the fused ranking requires.")
    images: bool = Field(description="Whether an image can be a query: whether the network is there.")
    cutoff: float | None = Field(description="Cutoff of searches that name none; null for no cutoff.")
    ranking: Ranking = Field(description="Ranking of searches that name none.")
    shortlist: int | None = Field(description="Shortlist of searches that name none; null for every relevant record.")
    keys: bool = Field(description="Whether the ids of records are strings, which are their keys.")
    attributes: dict[str, str] = Field(description="The type of each attribute of the records, by its name.")
    comparable: bool = Field(description="Whether comparing a query with every record is fast enough to be allowed.")
    version: str


class Health(_Message):
    """The server runs."""

    status: Literal["ok"] = "ok"
