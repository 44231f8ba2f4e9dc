"""The first defaults of searches of an index whose network was adopted: what copies of a few of its images say.

Nobody knows whether the classes of such a network fit the images. So `semcut index` asks a hundred of them, which takes
seconds: the cutoff loses, with confidence, at most 5 % of their copies, and there is none where the classes do not fit.
`semcut calibrate` asks more images, or labelled ones, and so bounds a smaller share.
"""

from __future__ import annotations

from semcut.connector.calibration.calibrate import FOR_CUTOFF, Calibration, calibrate_by_copies
from semcut.connector.calibration.risk_bounds import images_needed
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.retrieval.image_index import Connector
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress

IMAGES, MISS, CONFIDENCE = 100, 0.05, 0.95
"""The number of images, the share of their copies that a cutoff may lose, and the confidence of that."""


def first_calibration(connector: Connector, progress: Progress) -> Calibration | None:
    """Choose cutoff and ranking by copies of a few images of a new index; None if its network was not adopted.

    Args:
        connector: the index.
        progress: called with the number of images done so far and in all.

    Returns:
        What was found; None also if too few of the images can be read, so that they show nothing.
    """
    if not isinstance(connector.encoder.checkpoint.net, AdoptedNet):
        return None
    if round(FOR_CUTOFF * len(connector.index)) < images_needed(MISS, CONFIDENCE):
        return None
    try:
        return calibrate_by_copies(connector, images=IMAGES, miss=MISS, confidence=CONFIDENCE, progress=progress)
    except DataError:
        return None
