"""`semcut calibrate`: finds the cutoff and the ranking that fit an index, and makes them its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.evaluate_command import encode_with_progress
from semcut.connector.cli.image_options import limit_option, select_images
from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option, moved_model_option
from semcut.connector.cli.terminal import (
    SKIPPED_SHOWN,
    print_json,
    print_line,
    print_message,
    print_skipped,
    progress_bar,
    show_facts,
)
from semcut.indexes.errors import DataError, InvalidParameterError

if TYPE_CHECKING:
    from semcut.connector.calibration.calibrate import Calibration
    from semcut.connector.data.image_folders import Skipped


class ShareType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of a share: a percentage such as 5%, or a number between 0 and 1."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number between 0 and 1."""
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = -1.0
        if not 0 < share < 1:
            self.fail(f"{value!r} is no share: give a percentage such as 5%, or a number between 0 and 1", param, ctx)
        return share


@click.command()
@click.argument("index", type=PATH)
@click.argument("labelled", type=SOURCE, required=False)
@limit_option
@click.option(
    "--miss",
    type=ShareType(),
    metavar="SHARE",
    help="Largest share of what must be found that the cutoff may lose.  [default: 5% of the records of a "
    "class; without labels, 1% of the copies]",
)
@click.option(
    "--confidence",
    type=ShareType(),
    default="95%",
    show_default=True,
    help="Probability with which the cutoff keeps that for new images.",
)
@click.option(
    "--images",
    type=int,
    default=1000,
    show_default=True,
    help="Without labels: number of images of the index whose copies are searched.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random choices.")
@click.option("--dry-run", is_flag=True, help="Only show what would be chosen.")
@moved_model_option
@device_option
@json_option
def calibrate(
    index: Path, labelled: str | None, limit: int | None, miss: float | None, confidence: float, images: int, seed: int,
    dry_run: bool, model: Path | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Choose cutoff, ranking and shortlist of searches of INDEX.

    LABELLED is a folder or archive with one folder of images per class, like those that will be searched with, and not
    in the index. The cutoff is the largest that keeps the records of an image's class, up to a share, for new images.
    Without LABELLED, crops, mirrored and recoloured copies of images of the index are searched instead.
    """
    from semcut.connector.calibration import calibrate as calibration
    from semcut.connector.data.label_sets import require_one_label
    from semcut.connector.retrieval.image_index import Connector

    skipped: list[Skipped] = []
    with Connector.open(index, model, device=device) as connector:
        network = connector.encoder.checkpoint.digest
        if not len(connector.index):
            raise DataError(f"{index} has no records: there is nothing to calibrate")
        if labelled is not None:
            chosen = select_images(labelled, limit, None, "queries", seed)
            require_one_label(chosen.files, chosen.label_sets, "calibration")
            queries, labels, skipped = encode_with_progress(connector, chosen)
            found = calibration.calibrate_by_labels(
                connector, queries, labels.first(), chosen.classes, miss=miss or calibration.MISS_LABELLED,
                confidence=confidence, seed=seed,
            )  # fmt: skip
        else:
            if images < 20:
                raise InvalidParameterError(f"--images {images}: expected at least 20")
            with progress_bar("Encoding copies") as progress:
                found = calibration.calibrate_by_copies(
                    connector, images=images, miss=miss or calibration.MISS_COPIES, confidence=confidence, seed=seed,
                    progress=progress, skipped=skipped,
                )  # fmt: skip
            print_skipped(skipped, at_most=SKIPPED_SHOWN)
    if not dry_run:
        calibration.keep_defaults(index, found.defaults, network)
    if as_json:
        print_json({**found.as_dict(), "kept": not dry_run, "skipped": [list(pair) for pair in skipped]})
        return
    _show(index, found, dry_run)


def _show(index: Path, found: Calibration, dry_run: bool) -> None:
    """Print what was chosen, and what it costs and gains."""
    right = "records of an image's class" if found.by == "labels" else "copies"
    measure = "mAP@10" if found.by == "labels" else "copies whose image is among 10"
    show_facts(
        {
            "cutoff": "none" if found.cutoff is None else found.cutoff,
            "ranking": found.ranking,
            "shortlist": "all" if found.shortlist is None else found.shortlist,
            f"{right} that are lost": f"{found.lost:.2%} of those that chose the cutoff",
            "records that are scanned": f"{found.scanned:.1%}",
            f"records to scan for 95 % of the {right}": f"{found.scanned_for_95:.1%}",
            measure: {name: f"{value:.3f}" for name, value in found.quality.items()},
            "images": found.images,
        },
        title=str(index),
    )
    if not found.fits:
        print_message(
            f"to keep 95 % of the {right}, {found.scanned_for_95:.0%} of the records must be scanned: the network's "
            "classes do not fit these images"
        )
    if found.cutoff is not None:
        print_line(
            f"with {found.confidence:.0%} confidence, at most {found.miss:.1%} of the {right} are lost for new images "
            "like these"
        )
    elif found.fits:
        print_message(
            f"these images do not show that a cutoff loses at most {found.miss:.1%}, so searches have no cutoff: give "
            "more images, or allow a larger share"
        )
    print_line(f"{'not kept: --dry-run' if dry_run else 'kept as the defaults of searches of this index'}")
