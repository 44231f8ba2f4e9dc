"""What `semcut evaluate --ground-truth` does: queries whose right answers are known one by one.

The command reads the ground truth, searches with its queries, and compares the index with every record; it prints one
table for each level of difficulty, and the figures of single queries where they are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semcut.connector.cli.terminal import (
    OUT,
    SKIPPED_SHOWN,
    new_table,
    print_json,
    print_message,
    print_skipped,
    progress_bar,
)
from semcut.connector.cli.truth_options import TruthSource

if TYPE_CHECKING:
    from semcut.connector.evaluation.judged_search import SearchFigures
    from semcut.connector.ground_truth.judged_records import JudgedRecords
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes.search_params import SearchParams

_QUERIES_SHOWN = 100
"""Queries whose figures are printed one by one; of more only with --json."""


def evaluate_ground_truth(
    connector: Connector, images: str, truth: TruthSource, *, expand: int, as_json: bool, **settings: Any
) -> None:
    """Measure searches with the queries of a ground truth, and print the figures.

    Args:
        connector: the index.
        images: the source of the images that were indexed.
        truth: the ground truth.
        expand: number of first results that each query is averaged with.
        as_json: whether to print JSON.
        settings: k, cutoff, shortlist and ranking of the searches; "own" are those of the index.
    """
    from semcut.connector.data.sources import list_images
    from semcut.connector.evaluation.judged_search import compare_searches
    from semcut.connector.ground_truth.read_truth import read_ground_truth
    from semcut.connector.retrieval.image_queries_of import expanded
    from semcut.connector.retrieval.truth_queries import encode_truth_queries

    params = connector.defaults.params(**settings)
    listed = list_images(images)
    read = read_ground_truth(truth.form, truth.source, listed.files)
    with progress_bar("Encoding queries") as progress:
        judged, queries, own = encode_truth_queries(connector, read, listed, progress)
    queries = expanded(connector.index, queries, params, expand, own)
    print_skipped(judged.left_out, at_most=SKIPPED_SHOWN)
    with progress_bar("Searching") as progress:
        found = compare_searches(
            connector.index, queries, judged.levels, params, trapezoid=read.trapezoid, progress=progress
        )
    if as_json:
        content = _content(read.form, len(connector.index), judged, params, found, n_s=read.first_four)
        print_json({**content, "expand": expand})
        return
    print_message(judged.coverage.sentence(read.form))
    for level in judged.levels:
        _show_level(level, len(connector.index), judged, params, found, n_s=read.first_four)
    if len(judged.names) <= _QUERIES_SHOWN:
        for level in judged.levels:
            _show_queries(level, judged, found)


def _mean(values: Any) -> float | None:
    """Return the mean of the queries that count; None if there are none."""
    import numpy as np

    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else None


def _content(
    form: str,
    records: int,
    judged: JudgedRecords,
    params: SearchParams,
    found: dict[str, SearchFigures],
    *,
    n_s: bool,
) -> dict[str, Any]:
    """Return the figures as JSON: means for each level and search, and those of each query."""
    import numpy as np

    def means(figures: SearchFigures, level: str) -> dict[str, float | None]:
        values = {"map_all": _mean(figures.at_all[level]), "map_k": _mean(figures.at_k[level])}
        return {**values, **({"n_s": _mean(figures.first_four[level])} if n_s else {})}

    def of_query(place: int) -> dict[str, Any]:
        levels = {}
        for level, every in judged.levels.items():
            ap = {name: float(figures.at_all[level][place]) for name, figures in found.items()}
            levels[level] = {
                "relevant": len(every[place].relevant),
                "junk": len(every[place].junk),
                "ap_all": {name: None if np.isnan(value) else value for name, value in ap.items()},
            }
        return {"query": judged.names[place], "image": judged.files[place], "levels": levels}

    return {
        "ground_truth": form,
        "coverage": judged.coverage.as_dict(),
        "records": records,
        **params.model_dump(include={"k", "cutoff", "shortlist", "ranking"}),
        "levels": {level: {name: means(figures, level) for name, figures in found.items()} for level in judged.levels},
        "queries": [of_query(place) for place in range(len(judged.names))],
        "skipped": [list(pair) for pair in judged.left_out],
    }


def _show_level(
    level: str,
    records: int,
    judged: JudgedRecords,
    params: SearchParams,
    found: dict[str, SearchFigures],
    *,
    n_s: bool,
) -> None:
    """Print the means of every search at one level."""
    shortlist = "all" if params.shortlist is None else params.shortlist
    queries = sum(len(one.relevant) > 0 for one in judged.levels[level])
    table = new_table(
        "search", "mAP@all", f"mAP@{params.k}", *(["N-S"] if n_s else []),
        title=f"{_titled(level, judged)}{queries:,} queries, {records:,} records, cutoff {params.cutoff}, shortlist "
        f"{shortlist}, by {params.ranking}",
    )  # fmt: skip
    for name, figures in found.items():
        values = [figures.at_all[level], figures.at_k[level], *([figures.first_four[level]] if n_s else [])]
        table.add_row(name, *(_text(_mean(value)) for value in values), style="bold" if name == "index" else None)
    OUT.print(table)


def _show_queries(level: str, judged: JudgedRecords, found: dict[str, SearchFigures]) -> None:
    """Print the average precision of each query by the index, and by distance with every record."""
    exhaustive = "every record by distance"
    table = new_table(
        "query", "relevant", "junk", "AP@all, index", f"AP@all, {exhaustive}", title=f"{_titled(level, judged)}by query"
    )
    for place, name in enumerate(judged.names):
        relevant, junk = judged.levels[level][place]
        if len(relevant):
            values = (float(found[way].at_all[level][place]) for way in ("index", exhaustive))
            table.add_row(name, str(len(relevant)), str(len(junk)), *map(_text, values))
    OUT.print(table)


def _titled(level: str, judged: JudgedRecords) -> str:
    """Return the beginning of a heading: the level, if there are several."""
    return f"{level}: " if len(judged.levels) > 1 else ""


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
