"""Load everything that an index needs, on import; `stored_index.fork` forks processes after that."""

from __future__ import annotations

import tests.indexes.story  # noqa: F401
from semcut.indexes import FaissIndex
from tests.indexes.storage.stored_index import CONFIG, six_records

with FaissIndex.create(None, CONFIG) as index:
    index.add(six_records())
    index.search(six_records()[:1])
