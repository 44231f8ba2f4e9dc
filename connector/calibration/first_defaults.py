"""The first defaults of searches of an index whose network was adopted: what copies of a few of its images say.

Nobody knows whether the classes of such a network fit the images. So `semcut index` asks a hundred of them, which takes
seconds: the cutoff loses, with confidence, at most 5 % of their copies, and there is none where the classes do not fit.
`semcut calibrate` asks more images, or labelled ones, and so bounds a smaller share.
"""

from __future__ import annotations

from pathlib import Path

from semcut.connector.calibration.calibrate import FOR_CUTOFF, Calibration, calibrate_by_copies
from semcut.connector.calibration.risk_bounds import images_needed
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.retrieval.image_index import Connector
from semcut.connector.retrieval.model_link import LINK, change_link
from semcut.indexes.errors import DataError
from semcut.indexes.unfinished import storage_errors

IMAGES, MISS, CONFIDENCE = 100, 0.05, 0.95
"""The number of images, the share of their copies that a cutoff may lose, and the confidence of that."""


def choose_first_defaults(connector: Connector, place: Path) -> Calibration | None:
    """Choose cutoff, ranking and shortlist by copies of a few images of a new index, and make them its defaults.

    Args:
        connector: the index, of which it is the writer.
        place: directory of the index.

    Returns:
        What was found; None if the network was not adopted, or too few images can be read, so that they show nothing.

    Raises:
        StorageError: the index was replaced meanwhile, or its link cannot be written.
    """
    if not isinstance(connector.encoder.checkpoint.net, AdoptedNet):
        return None
    if round(FOR_CUTOFF * len(connector.index)) < images_needed(MISS, CONFIDENCE):
        return None
    try:
        found = calibrate_by_copies(connector, images=IMAGES, miss=MISS, confidence=CONFIDENCE)
    except DataError:
        return None
    connector.files.require_in_place()
    with storage_errors(place / LINK):
        change_link(place, cutoff=found.cutoff, ranking=found.ranking, shortlist=found.shortlist)
    return found
