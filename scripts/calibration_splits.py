"""Check the promise of `semcut calibrate` on many random splits of labelled images.

    python scripts/calibration_splits.py INDEX LABELLED [--splits 200] [--images 1000] [--miss 0.05]

The labelled images are encoded once. In each split, some of them choose a cutoff, and the mean loss of the others shows
whether the promise is kept. It may be broken in at most 1 - confidence of the splits.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from semcut.connector.calibration.calibrate import losses_of_classes
from semcut.connector.calibration.risk_bounds import CUTOFFS, largest_cutoff
from semcut.connector.cli.evaluate_command import encode_with_progress
from semcut.connector.data import sources
from semcut.connector.retrieval.image_index import Connector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("labelled")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000, help="images of a split that choose the cutoff")
    parser.add_argument("--limit", type=int, default=5000, help="labelled images in all")
    parser.add_argument("--miss", type=float, default=0.05)
    parser.add_argument("--confidence", type=float, default=0.95)
    args = parser.parse_args()
    with Connector.open(args.index) as connector:
        images = sources.load(args.labelled).sample(args.limit, 0)
        queries, sets, _ = encode_with_progress(connector, images)
        labels = sets.first()
        known = connector.labels(images.classes)
        totals = np.bincount(known.labels[known.labels >= 0], minlength=len(images.classes))
        kept = np.flatnonzero(totals[labels] > 0)
        losses = losses_of_classes(connector.index, known, queries[kept], labels[kept])
    rng = np.random.default_rng(0)
    cutoffs, risks = [], []
    for _ in range(args.splits):
        order = rng.permutation(len(losses))
        chosen = largest_cutoff(losses[order[: args.images]], args.miss, args.confidence)
        cutoffs.append(-1.0 if chosen is None else chosen)
        at = int(np.searchsorted(CUTOFFS, cutoffs[-1]))
        risks.append(0.0 if chosen is None else float(losses[order[args.images :], at].mean()))
    broken = int(np.count_nonzero(np.array(risks) > args.miss))
    figures = {
        "splits": args.splits,
        "images that choose": args.images,
        "images that test": len(losses) - args.images,
        "broken": broken,
        "cutoff, smallest": min(cutoffs),
        "cutoff, median": float(np.median(cutoffs)),
        "cutoff, largest": max(cutoffs),
        "loss, mean": float(np.mean(risks)),
        "loss, largest": max(risks),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
