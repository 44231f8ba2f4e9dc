"""Images, their labels, and the data sets that they come from. Needs Pillow, not torch."""

from semcut.indexes.errors import require as _require

_require({"PIL": "pillow"}, "read images", "train")
