"""`semcut evaluate`: how good an index answers, by labels, and what that costs; rankings compared by a protocol."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from semcut.connector.cli.app import ERR, OUT, PATH, print_json
from semcut.connector.cli.options import images_of, json_option, progress, protocol_option, search_options, show_table
from semcut.connector.models.allocator import keep_freed_memory
from semcut.connector.models.names import ProtocolName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcut.connector.data.sources import ImageSet
    from semcut.connector.evaluation.evaluate import Evaluation
    from semcut.connector.evaluation.rankings import Figures
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes import Encodings
    from semcut.indexes.config import Ranking


@click.command()
@click.argument("index", type=PATH)
@click.argument("queries")
@click.option("--limit", type=click.IntRange(min=1), help="Use so many of the queries, evenly over the classes.")
@protocol_option
@click.option("--seed", default=0, show_default=True, help="For the choice of queries, and of what the protocol draws.")
@search_options(k=10)
@json_option
def evaluate(
    index: Path, queries: str, limit: int | None, protocol: ProtocolName | None, seed: int, model: Path | None,
    device: str, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Measure how well INDEX answers labelled QUERIES.

    QUERIES is a folder or archive of class folders. Prints mAP, precision and the share that was scanned. With a
    protocol, it is the same data that the network was trained on and the index was made of, which is checked, and all
    rankings are compared at several cutoffs.
    """
    from semcut.connector.data.protocols import check, parts
    from semcut.connector.retrieval.image_index import Connector

    images = images_of(queries, limit, protocol, "queries", seed)
    with Connector.open(index, model, device=device) as connector:
        if protocol is not None:
            uris = connector.index.uris(connector.index.ids())
            trained = connector.encoder.checkpoint.training_images()
            check(protocol, parts(protocol, queries, seed), trained, uris)
        encodings, labels = encoded(connector, images)
        result = measured(connector, images.classes, encodings, labels, **settings)
        rankings = [] if protocol is None else _rankings(connector, images.classes, encodings, labels, protocol)
    if as_json:
        print_json({**result.as_dict(), **({"rankings": [asdict(row) for row in rankings]} if rankings else {})})
        return
    report(result)
    if protocol is not None:
        _show_rankings(rankings, protocol)


def encoded(connector: Connector, images: ImageSet) -> tuple[Encodings, NDArray[np.int64]]:
    """Encodings and labels of the images that can be read."""
    import numpy as np

    from semcut.indexes import Encodings

    keep_freed_memory()
    with progress() as bar:
        task = bar.add_task("Encoding queries", total=len(images))
        batches, kept = [], []
        for batch in connector.encoder.encode_files(images.files):
            batches.append(batch.encodings)
            assert batch.encodings.ids is not None
            kept.append(batch.encodings.ids)
            bar.advance(task, len(batch.encodings) + len(batch.skipped))
            for file, reason in batch.skipped:
                ERR.print(f"skipped {escape(file)}: {escape(reason)}", highlight=False, soft_wrap=True)
    return Encodings.concatenate(batches), images.labels[np.concatenate(kept)]


def measured(
    connector: Connector,
    classes: tuple[str, ...],
    queries: Encodings,
    labels: NDArray[np.int64],
    *,
    k: int,
    cutoff: float,
    shortlist: int | None,
    ranking: Ranking,
) -> Evaluation:
    from semcut.connector.evaluation.evaluate import evaluate as measure

    return measure(
        connector.index,
        connector.labels(classes),
        queries,
        labels,
        classes,
        k=k,
        cutoff=cutoff,
        shortlist=shortlist,
        ranking=ranking,
    )


def _rankings(
    connector: Connector,
    classes: tuple[str, ...],
    queries: Encodings,
    labels: NDArray[np.int64],
    protocol: ProtocolName,
) -> list[Figures]:
    from semcut.connector.data.protocols import PROTOCOLS
    from semcut.connector.evaluation.rankings import compare
    from semcut.indexes import Encodings

    records = Encodings.concatenate(list(connector.index.iterate()))
    assert records.ids is not None
    with progress() as bar:
        task = bar.add_task("Comparing rankings", total=len(queries))
        return compare(
            records,
            connector.labels(classes)[records.ids],
            queries,
            labels,
            connector.index.config,
            ks=(PROTOCOLS[protocol].k,),
            progress=lambda done, of: bar.update(task, completed=done),
        ).figures(PROTOCOLS[protocol].k)


def _show_rankings(rows: list[Figures], protocol: ProtocolName) -> None:
    from semcut.connector.data.protocols import PROTOCOLS

    k = PROTOCOLS[protocol].k
    table = Table("t", "ranking", "mAP@all", f"mAP@{k}", f"precision@{k}", "relevant", "codes scanned",
                  title=f"Rankings, {protocol}")  # fmt: skip
    for column in (0, *range(2, 7)):
        table.columns[column].justify = "right"
    for row in sorted(rows, key=lambda row: row.cutoff):
        table.add_row(
            f"{row.cutoff:g}", row.ranking, f"{row.map_all:.3f}", f"{row.map_k:.3f}", f"{row.precision_k:.3f}",
            f"{row.relevant:.1%}", f"{row.scanned:.1%}",
        )  # fmt: skip
    OUT.print(table)


def report(result: Evaluation) -> None:
    shortlist = "all" if result.shortlist is None else result.shortlist
    table = Table(
        "class", "queries", "mAP@all", f"mAP@{result.k}", f"precision@{result.k}",
        title=f"{result.records:,} records, cutoff {result.cutoff}, shortlist {shortlist}, by {result.ranking}",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in [*result.per_class.items(), ("all", result.overall)]:
        table.add_row(
            escape(name), str(figures.queries), f"{figures.map_all:.3f}", f"{figures.map_k:.3f}",
            f"{figures.precision_k:.3f}", style="bold" if name == "all" else None,
        )  # fmt: skip
    OUT.print(table)
    show_table(
        "What a query costs (mean)",
        {
            "partitions scanned": f"{result.partitions_scanned:.1%}",
            "cells scanned": f"{result.cells_scanned:.1%}",
            "codes scanned": f"{result.codes_scanned:.1%}",
            "records looked at and cut off": f"{result.cut_off:.1f}",
            "ms per query, in one batch": f"{result.ms_per_query_batch:.3f}",
            "ms per query, one at a time": f"{result.ms_per_query_single:.3f}",
        },
    )
