"""Encode the queries of a ground truth, and find the records of an index that it judges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.image_folders import ImageFolder
from semcut.connector.ground_truth.judged_queries import GroundTruth
from semcut.connector.ground_truth.judged_records import JudgedRecords, find_judged_records
from semcut.connector.retrieval.cropped_queries import encode_cropped
from semcut.connector.retrieval.image_index import Connector
from semcut.indexes import Encodings
from semcut.indexes.progress import Progress


class TruthQueries(NamedTuple):
    """The queries of a ground truth that can be used.

    Attributes:
        judged: n queries, and the records that are judged for each.
        encodings: n encodings, each of an image cropped to its box.
        own: (n,) int64, the record that the ground truth leaves out of the answer to each; an unused id for no record.
    """

    judged: JudgedRecords
    encodings: Encodings
    own: NDArray[np.int64]


def encode_truth_queries(
    connector: Connector, truth: GroundTruth, images: ImageFolder, progress: Progress
) -> TruthQueries:
    """Find the records that a ground truth names, and encode its queries.

    Args:
        connector: the index.
        truth: the ground truth.
        images: the images of the set.
        progress: called with the number of queries that were encoded.

    Raises:
        DataError: two images have the same name, or no query can be used.
    """
    judged = find_judged_records(truth, images.root, images.files, connector.ids_of(images.files))
    skipped: list[tuple[str, str]] = []
    queries, kept = encode_cropped(connector.encoder, judged.files, judged.boxes, skipped, progress)
    judged = judged.without_unreadable(kept, skipped)
    own = judged.left_out_records(connector.ids_of(judged.files), connector.index.next_id())
    return TruthQueries(judged, queries, own)
