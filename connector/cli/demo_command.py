"""`semcut demo`: runs train, index, search and evaluate once, on scanned digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import click

import semcut.connector.models  # noqa: F401  # reports which packages are missing
from semcut.connector.cli import demo_folder
from semcut.connector.cli.demo_folder import INDEX, MODEL, PICTURE, QUERIES
from semcut.connector.cli.options import PATH, json_option
from semcut.connector.cli.terminal import print_json, print_line, print_message
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST


@click.command()
@click.option(
    "--out",
    type=PATH,
    default=Path("demo"),
    show_default=True,
    help="Directory for the network, the index and a picture.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the training and of the choice of queries.")
@json_option
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Try everything once on scanned digits, in about a minute.

    Trains a network on the scanned digits of scikit-learn, indexes and searches the digits, evaluates the results and
    draws a picture. If the command is repeated, it uses the trained network and makes the index again.
    What is not of the demo is never replaced.
    """
    from semcut.connector.cli.evaluate_command import encode_with_progress, evaluate_encodings, show_evaluation
    from semcut.connector.cli.index_command import index_with_progress
    from semcut.connector.cli.search_command import write_contact_sheet
    from semcut.connector.cli.train_command import train_with_progress
    from semcut.connector.data import sources
    from semcut.connector.models.network import Architecture
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.train_config import TrainConfig
    from semcut.indexes.storage.atomic_write import replacing, write_file

    demo_folder.require_own_directories(out)
    training, queries = sources.digits("train"), sources.digits("test")
    files = list(map(Path, queries.sample(6, seed).files))
    digits = {out / QUERIES / file.parent.name / file.name: file.read_bytes() for file in files}
    demo_folder.require_own_files(out, digits)
    print_message(f"{len(training)} scans of digits to train on and to index, {len(queries)} other scans as queries")
    architecture = Architecture(backbone="small", classes=training.classes, image_size=16)
    config = TrainConfig(epochs=25, augment="shift", seed=seed)
    train_with_progress(training, architecture, config, out / MODEL, resume=True)
    demo_folder.delete_index_of_demo(out, training.roots, training.files)
    index_with_progress(training.files, out / MODEL, out / INDEX, roots=training.roots)
    with Connector.open(out / INDEX) as connector:
        for copy in demo_folder.require_own_files(out, digits):
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_file(copy, digits[copy])
        examples = list(map(str, digits))
        write_contact_sheet(examples, connector.search(examples, k=5), out / PICTURE, writing=replacing)
        encodings, labels, _ = encode_with_progress(connector, queries)
        result = evaluate_encodings(
            connector, queries.classes, encodings, labels,
            k=DEFAULT_K, cutoff=DEFAULT_CUTOFF, shortlist=DEFAULT_SHORTLIST, ranking="fused",
        )  # fmt: skip
    if as_json:
        print_json({"model": str(out / MODEL), "index": str(out / INDEX), **result.as_dict()})
        return
    show_evaluation(result)
    print_line("")
    print_line(f"Now try: semcut search {out / INDEX} {examples[0]}")
