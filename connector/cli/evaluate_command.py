"""`semcut evaluate`: measures retrieval quality by labels or by ground truth, and what a search costs.

With a protocol, the command also compares all rankings of the paper at several cutoffs. What it does with ground truth
is in `ground_truth_report`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcut.connector.cli.ground_truth_report import evaluate_ground_truth
from semcut.connector.cli.image_options import limit_option, protocol_option, select_images
from semcut.connector.cli.options import PATH, SOURCE, json_option, search_options, where_option
from semcut.connector.cli.terminal import (
    OUT,
    SKIPPED_SHOWN,
    new_table,
    print_json,
    print_message,
    print_skipped,
    progress_bar,
    show_facts,
)
from semcut.connector.cli.truth_options import TruthSource, ground_truth_option
from semcut.connector.data import ProtocolName
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError
from semcut.indexes.search_defaults import DEFAULT_K

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcut.connector.data.image_folders import Skipped
    from semcut.connector.data.label_sets import LabelSets
    from semcut.connector.data.labels import RecordLabels
    from semcut.connector.data.sources import ImageSet
    from semcut.connector.evaluation.evaluate import Evaluation
    from semcut.connector.evaluation.rankings import RankingFigures
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes import Encodings


@click.command()
@click.argument("index", type=PATH)
@click.argument("queries", type=SOURCE)
@click.option(
    "--labels", type=SOURCE,
    help="Labels of the records: a list, or other labelled images, with the paths that were indexed.  [default: the "
    "class of a record is the folder of its file]",
)  # fmt: skip
@ground_truth_option("Right answers query by query, in place of labels; QUERIES are the images that were indexed.")
@limit_option
@protocol_option
@click.option("--seed", default=0, show_default=True, help="Seed of the random choice by --limit or --protocol.")
@search_options(k=DEFAULT_K)
@where_option
@json_option
def evaluate(
    index: Path, queries: str, labels: str | None, ground_truth: TruthSource | None, limit: int | None,
    protocol: ProtocolName | None, seed: int, model: Path | None, device: str, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Measure how well INDEX answers labelled QUERIES.

    QUERIES is a folder or archive with one folder of images per class, at any depth below it, or a list, Parquet files
    or shards with labels. A record is right if it shares a label with the query. Prints mAP, precision and the share of
    the index that was scanned. With --protocol, QUERIES is the data set that the network was trained on and the index
    was made from; the command checks that, and also compares all rankings at several cutoffs.

    With --ground-truth, for collections in which the same thing is to be found, QUERIES are the images that were
    indexed. Prints mAP of the index and of comparisons with every record.
    """
    from semcut.connector.data.protocols import check_protocol, protocol_split
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.retrieval.image_queries_of import expanded

    if ground_truth is not None:
        others = {"labels": labels, "limit": limit, "protocol": protocol, "where": settings.pop("where")}
        for name, value in others.items():
            if value is not None:
                raise click.UsageError(f"--ground-truth determines queries and right records: leave out --{name}")
        with Connector.open(index, model, device=device) as connector:
            evaluate_ground_truth(connector, queries, ground_truth, as_json=as_json, **settings)
        return
    if protocol is not None and labels is not None:
        raise click.UsageError("--protocol determines the labels of the records: leave out --labels")
    if protocol is not None and settings["where"] is not None:
        raise click.UsageError("--protocol compares rankings of all records: leave out --where")
    images = select_images(queries, limit, protocol, "queries", seed)
    with Connector.open(index, model, device=device) as connector:
        if protocol is not None:
            uris = connector.paths(connector.index.ids())
            trained = connector.encoder.checkpoint.training_digests().all
            check_protocol(protocol, protocol_split(protocol, queries, seed), trained, uris)
        records = None if labels is None else _record_labels(connector, images.classes, labels)
        encodings, truth, skipped = encode_with_progress(connector, images)
        expand, where = settings.pop("expand"), settings.pop("where")
        params = connector.defaults.params(**settings)
        encodings = expanded(connector.index, encodings, params, expand, where=where)
        result = evaluate_encodings(connector, images.classes, encodings, truth, records, where=where, **settings)
        learned = _trained(connector, images)
        rankings = [] if protocol is None else _rankings(connector, images.classes, encodings, truth.first(), protocol)
    if as_json:
        more = {"rankings": [asdict(row) for row in rankings]} if rankings else {}
        print_json({**result.as_dict(), "trained": learned, **more, "skipped": [list(pair) for pair in skipped]})
        return
    show_evaluation(result)
    if learned is not None:
        counts = f"{learned['records']:,} of {learned['known_records']:,}"
        queries_seen = "not known" if learned["queries"] is None else learned["queries"]
        show_facts({"records": counts, "queries": queries_seen}, title="Seen in training")
        if learned["queries"]:
            print_message("the network has learned some of the queries, so the figures are better than for new images")
    if protocol is not None:
        _show_rankings(rankings, protocol)


def encode_with_progress(connector: Connector, images: ImageSet) -> tuple[Encodings, LabelSets, list[Skipped]]:
    """Encode labelled images; show a progress bar, and print what cannot be read or was left out.

    Returns:
        Encodings of the n images that can be read, their labels, and what was skipped, with reasons.

    Raises:
        DataError: none of the images can be read.
    """
    import numpy as np

    from semcut.indexes import Encodings

    keep_freed_memory()
    batches, positions, skipped = [], [], []
    done = 0
    with progress_bar("Encoding queries") as progress:
        for batch in connector.encoder.encode_files(images.files):
            batches.append(batch.encodings)
            assert batch.encodings.ids is not None
            positions.append(batch.encodings.ids)
            done += len(batch.encodings) + len(batch.skipped)
            progress(done, len(images))
            skipped += batch.skipped
    if not sum(map(len, batches)):
        raise DataError(f"none of the {len(images):,} queries can be read, the first is {': '.join(skipped[0])}")
    labels = images.all_labels[np.concatenate(positions)]
    found, given = set(labels.labels.tolist()), set(images.all_labels.labels.tolist())
    skipped += [
        (name, "a class of which no image can be read, so it is no class")
        for number, name in enumerate(images.classes)
        if number in given - found
    ]
    skipped += images.skipped
    print_skipped(skipped, at_most=SKIPPED_SHOWN)
    return Encodings.concatenate(batches), labels, skipped


def evaluate_encodings(
    connector: Connector,
    classes: tuple[str, ...],
    queries: Encodings,
    labels: LabelSets,
    records: RecordLabels | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure how well an index answers encoded queries.

    Args:
        connector: the index.
        classes: names of the labels.
        queries: n queries.
        labels: the labels of the n queries, one or several of each.
        records: the labels of the records; None for the class folders of their files.
        settings: k, cutoff, shortlist and ranking of the searches; "own" are those of the index; and `where`.
    """
    from semcut.connector.evaluation.evaluate import evaluate as measure

    where = settings.pop("where", None)
    chosen = connector.defaults.params(**settings).model_dump(include={"k", "cutoff", "shortlist", "ranking"})
    records = connector.labels(classes) if records is None else records
    return measure(connector.index, records, queries, labels, classes, where=where, **chosen)


def _record_labels(connector: Connector, classes: tuple[str, ...], source: str) -> RecordLabels:
    """Look up the labels of the records in a list or other labelled images."""
    from semcut.connector.data import sources
    from semcut.connector.data.labels import labels_of_images

    return labels_of_images(connector.index, classes, sources.load(source), connector.files.root)


def _rankings(
    connector: Connector,
    classes: tuple[str, ...],
    queries: Encodings,
    labels: NDArray[np.int64],
    protocol: ProtocolName,
) -> list[RankingFigures]:
    """Compare all rankings at several cutoffs, over all records of the index."""
    from semcut.connector.data.protocols import PROTOCOLS
    from semcut.connector.evaluation.rankings import compare
    from semcut.indexes import Encodings

    k = PROTOCOLS[protocol].k
    records = Encodings.concatenate(list(connector.index.iterate()))
    assert records.ids is not None
    with progress_bar("Comparing rankings") as progress:
        compared = compare(
            records,
            connector.labels(classes)[records.ids],
            queries,
            labels,
            connector.index.config,
            ks=(k,),
            progress=progress,
        )
        return compared.figures(k)


def _trained(connector: Connector, images: ImageSet) -> dict[str, int | None] | None:
    """Count the records and queries that the network was trained on; None where that is not known."""
    from semcut.connector.data.image_contents import digests_of
    from semcut.connector.retrieval.trained_records import trained_records

    digests = connector.encoder.trained_on
    found = trained_records(connector.files.known().facts.values(), digests)
    if digests is None:
        return {"records": found.trained, "known_records": found.known, "queries": None} if found.known else None
    queries = sum(digest in digests for digest in digests_of(images.files))
    return {"records": found.trained, "known_records": found.known, "queries": queries}


def show_evaluation(result: Evaluation) -> None:
    """Print the quality of every class and the mean cost of a query."""
    shortlist = "all" if result.shortlist is None else result.shortlist
    table = new_table(
        "class", "queries", "mAP@all", f"mAP@{result.k}", f"precision@{result.k}",
        title=f"{result.records:,} records, cutoff {result.cutoff}, shortlist {shortlist}, by {result.ranking}",
    )  # fmt: skip
    for name, figures in [*result.per_class.items(), ("all", result.overall)]:
        table.add_row(
            name, str(figures.queries), f"{figures.map_all:.3f}", f"{figures.map_k:.3f}",
            f"{figures.precision_k:.3f}", style="bold" if name == "all" else None,
        )  # fmt: skip
    OUT.print(table)
    show_facts(
        {
            "partitions scanned": f"{result.partitions_scanned:.1%}",
            "cells scanned": f"{result.cells_scanned:.1%}",
            "codes scanned": f"{result.codes_scanned:.1%}",
            "records scored and cut off": f"{result.cut_off:.1f}",
            "ms per query, all queries in one batch": f"{result.ms_per_query_batch:.3f}",
            "ms per query, one query per call": f"{result.ms_per_query_single:.3f}",
        },
        title="Mean cost of a query",
    )


def _show_rankings(rows: list[RankingFigures], protocol: ProtocolName) -> None:
    from semcut.connector.data.protocols import PROTOCOLS

    k = PROTOCOLS[protocol].k
    table = new_table(
        "t", "ranking", "mAP@all", f"mAP@{k}", f"precision@{k}", "relevant", "codes scanned",
        title=f"Rankings, {protocol}", text=(1,),
    )  # fmt: skip
    for row in sorted(rows, key=lambda row: row.cutoff):
        table.add_row(
            f"{row.cutoff:g}", row.ranking, f"{row.map_all:.3f}", f"{row.map_k:.3f}", f"{row.precision_k:.3f}",
            f"{row.relevant:.1%}", f"{row.scanned:.1%}",
        )  # fmt: skip
    OUT.print(table)
