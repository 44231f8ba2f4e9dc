"""`Collection`: the definition of a collection on the server, and its creation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semcut.indexes.milvus.connection import RefusedCallError, ServerConnection
from semcut.indexes.milvus.pymilvus_internals import DataType, MilvusClient

Scalar = tuple[str, DataType, dict[str, Any]]
"""A field: name, type, options."""

Vector = tuple[str, DataType, int, str, str]
"""A field: name, type, dim, kind of index, metric."""


@dataclass(frozen=True)
class Collection:
    """The definition of a collection.

    Attributes:
        name: the name of the collection.
        scalars, vectors: the fields.
        options: further arguments of `create_collection`.
    """

    name: str
    scalars: list[Scalar]
    vectors: list[Vector]
    options: dict[str, Any]

    def __str__(self) -> str:
        """Return the fields as text."""
        fields = [f"{name} {kind.name}" for name, kind, _ in self.scalars]
        return ", ".join(fields + [f"{name} {kind.name}({dim}) {index}" for name, kind, dim, index, _ in self.vectors])

    def create(self, server: ServerConnection) -> None:
        """Create the collection. It cannot be used before `index` and `load`."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description="semcut")
        for name, kind, extra in self.scalars:
            schema.add_field(name, kind, **extra)
        for name, kind, dim, _, _ in self.vectors:
            schema.add_field(name, kind, dim=dim)
        server.call("create_collection", self.name, schema=schema, **{"consistency_level": "Session"} | self.options)

    def index(self, server: ServerConnection) -> None:
        """Index the vectors."""
        indexes = MilvusClient.prepare_index_params()
        for name, _, _, index, metric in self.vectors:
            indexes.add_index(field_name=name, index_type=index, metric_type=metric)
        try:
            server.call("create_index", self.name, indexes)
        except RefusedCallError:  # the core of 2.4 may fail with an internal error, and then do the same request
            server.call("create_index", self.name, indexes)

    def load(self, server: ServerConnection) -> None:
        """Load the collection, which takes seconds."""
        server.call("load_collection", self.name)
