"""What goes over the wire. Ids are texts, since numbers in JavaScript end at 2^53 and ids at 2^63."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from semcut.indexes.config import Ranking

MAX_K, MAX_SHORTLIST = 500, 100_000
MAX_UPLOAD = 16 << 20
"""Bytes of an image that is searched with."""

Id = Annotated[str, Field(description="The id of a record, a whole number from 0 to 2^63 - 1.", pattern=r"^\d{1,19}$")]
RecordNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Problem(_Wire):
    """Why a request was not answered, in a sentence."""

    error: str


class Asked(_Wire):
    """A search: for a record by its `id`, or for an `image`, a file in base64."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["id"]}, {"required": ["image"]}]},
    )

    id: RecordNumber | None = None
    image: Base64Bytes | None = Field(default=None, max_length=MAX_UPLOAD)
    k: int = Field(default=12, ge=1, le=MAX_K, description="How many records to find.")
    cutoff: float = Field(default=0.2, ge=0, lt=1, description="Only records with a relevance above it are considered.")
    shortlist: int | None = Field(
        default=100, ge=1, le=MAX_SHORTLIST, description="How many records nearest by code are ranked; null: all."
    )
    ranking: Ranking = "distance"
    explain: bool = Field(default=False, description="Also say what was done with each partition.")
    compare: bool = Field(default=False, description="Also compare the query with every record, which takes long.")

    @model_validator(mode="after")
    def _one_query(self) -> Asked:
        if (self.id is None) == (self.image is None):
            raise ValueError("give an id or an image, one of the two")
        if self.shortlist is not None and self.shortlist < self.k:
            raise ValueError(f"a shortlist of {self.shortlist} cannot give k = {self.k} records")
        return self


class Likely(_Wire):
    """A class, and how probable the network finds it."""

    partition: int
    name: str
    probability: float


class Record(_Wire):
    """A record: its likeliest class is its partition."""

    id: Id
    uri: str | None
    classes: list[Likely] = Field(description="The likeliest classes, first the partition that it is in.")


class Query(_Wire):
    """What was searched for; without an id if it was an image."""

    id: Id | None
    uri: str | None
    classes: list[Likely]


class FoundRecord(_Wire):
    """A record of an answer."""

    record: Record
    distance: float = Field(description="Euclidean distance of features.")
    relevance: float = Field(description="Probability that its class and the query's are the same, Eq. 1.")
    score: float | None = Field(description="Eq. 4; null where features are not of length 1.")
    hamming: int = Field(description="Bits of the codes that differ.")


class Done(_Wire):
    """What a search did."""

    records: int = Field(description="Records in the index.")
    partitions: int = Field(description="Partitions scanned.")
    cells: int = Field(description="Cells scanned.")
    codes: int | None = Field(description="Records in these cells; null where a server does not count them.")
    cut_off: int = Field(description="Records that were looked at and were not relevant.")
    milliseconds: float = Field(description="Of the search alone, without the reading of images and records.")


class Pruned(_Wire):
    """What pruning left of a partition."""

    partition: int
    name: str
    records: int
    cells: int
    bound: float = Field(description="No record of the partition is more relevant than this.")
    kept_cells: int
    kept_records: int | None = Field(description="Records in these cells; null where a server does not count them.")


class Compared(_Wire):
    """What comparing with every record gives: the k best that are relevant, without a shortlist."""

    hits: list[FoundRecord]
    same: bool = Field(description="Whether the search found the same records in the same order.")
    missing: list[Id] = Field(description="Records that the search did not find.")
    milliseconds: float


class Answer(_Wire):
    """What was found, best first."""

    query: Query
    hits: list[FoundRecord]
    done: Done
    version: str = Field(description="Of the index; another one after each change.")
    partitions: list[Pruned] | None = Field(description="If asked for: partitions with records, largest bound first.")
    compared: Compared | None = Field(description="If asked for.")


class Partition(_Wire):
    """The records of a dominant class."""

    partition: int
    name: str
    records: int
    cells: int
    confidence: float | None = Field(description="Mean largest probability of some records; null if there are none.")
    sample: list[Id] = Field(description="Some records, spread evenly.")


class Partitions(_Wire):
    """Partitions with records, the largest first."""

    total: int
    partitions: list[Partition]


class Members(_Wire):
    """Records of a partition."""

    partition: int
    name: str
    total: int = Field(description="Records that it has.")
    records: list[Record]


class Sample(_Wire):
    """Records drawn at random."""

    records: list[Record]


class Stats(_Wire):
    """The size of the index, and what can be asked of it."""

    records: int
    removed: int
    partitions: int = Field(description="Partitions with records.")
    cells: int
    classes: list[str] = Field(description="Names, in order of the probabilities.")
    bits: int
    dim: int
    normalised: bool = Field(description="Whether features are of length 1, so that the fused ranking can be used.")
    images: bool = Field(description="Whether images can be searched with: whether the network is there.")
    comparable: bool = Field(description="Whether a query can be compared with every record in reasonable time.")
    version: str


class Health(_Wire):
    """That the server is up."""

    status: Literal["ok"] = "ok"
