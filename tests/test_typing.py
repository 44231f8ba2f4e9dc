"""Programs of users type-check: the snippet of the README, and a longer program that uses every public name.

The programs are checked in a directory of their own, without this project's settings, by `mypy --strict` and by pyright
(as basedpyright, which brings its own node) in strict mode. Three lines are wrong on purpose and have a comment that
expects the error: if every type were `Any`, the checker would report that these comments are unnecessary.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import semcut

ROOT = Path(__file__).parents[1]

PROGRAM = '''
"""Use every public name as a program would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut import (
    AdoptionChoices,
    Among,
    Architecture,
    BruteForceIndex,
    Capabilities,
    Checkpoint,
    CheckpointError,
    ClosedIndexError,
    ConcurrentWriteError,
    Connector,
    DamagedIndexError,
    DataError,
    DeviceError,
    DuplicateIdError,
    Encoder,
    Encodings,
    Explanation,
    Expression,
    FaissIndex,
    FormatVersionError,
    Hit,
    ImageSet,
    IndexConfig,
    IndexExistsError,
    IndexStats,
    InvalidEncodingsError,
    InvalidParameterError,
    LockedError,
    MissingDependencyError,
    NearDuplicates,
    NotAnIndexError,
    RangeResult,
    Records,
    SearchHit,
    SearchParams,
    SearchResult,
    SearchTrace,
    SemanticHashNet,
    SemanticIndex,
    SemcutError,
    ServerError,
    StorageError,
    TrainConfig,
    UnknownIdError,
    adopt,
    attribute,
    averaged_records,
    expanded_queries,
    joined_query,
    near_duplicates,
    train,
)


def batch(n: int, first_id: int = 0) -> Encodings:
    rng = np.random.default_rng(first_id)
    features = rng.standard_normal((n, 16)).astype(np.float32)
    return Encodings(
        probabilities=rng.dirichlet(np.full(5, 0.2), n).astype(np.float32),
        codes=rng.integers(0, 256, (n, 8), dtype=np.uint8),
        features=features,
        ids=np.arange(first_id, first_id + n),
        uris=[f"{number}.jpg" for number in range(n)],
    )


def show(result: SearchResult) -> list[int]:
    first: int = int(result.ids[0, 0])
    row: NDArray[np.float32] = result.distances[0]
    hits: list[SearchHit] = result[0]
    for one in hits:
        print(one.id + 1, one.distance / 2, one.relevance, one.score, one.hamming, one.uri or "no file")
    for several in result:
        print(len(several))
    print(len(result), first, float(row[0]), result.codes.mean(), result.to_dicts()[0]["id"], result.to_frame())
    return [hit.id for hit in hits]


def read(index: SemanticIndex) -> None:
    stats: IndexStats = index.stats()
    records: Records = index.get([5, 6, 7])
    batches: Iterator[Records] = index.iterate(batch_size=100)
    for one in batches:
        print(len(one), one.ids[0], one.ids.tolist())
    able: Capabilities = index.capabilities
    explained: Explanation = index.explain(records[:1], cutoff=0.1)
    print(stats.records, records.ids[0], index.uris(records.ids), index.contains([1])[0], index.next_id())
    print(able.counts_codes, explained.bounds.max(), index.members(0, limit=3), index.version, index.refresh())


def store(path: str) -> None:
    config = IndexConfig(classes=5, bits=64, dim=16, prior=(0.2, 0.2, 0.2, 0.2, 0.2))
    params = SearchParams(k=5, cutoff=0.1, shortlist=None, ranking="distance")
    with FaissIndex.create(path, config, durability="close") as index:
        index.add(batch(100))
        index.upsert(batch(10, 95))
        index.remove(np.arange(3))
        index.remove([3, 4])
        index.flush()
        trace = SearchTrace()
        result = index.search(
            batch(2), k=params.k, cutoff=params.cutoff, shortlist=params.shortlist, ranking=params.ranking, trace=trace
        )
        print(show(result), trace.seconds["total"] + trace.counts["codes"])
        read(index)
        index.compact()
        index.backup(path + "-copy")
        print([damage.what for damage in index.verify()])
    reference = BruteForceIndex(config)
    reference.add(batch(10))
    show(reference.search(batch(1), k=3))


def ask() -> None:
    rows = batch(100)
    features = rows.features / np.linalg.norm(rows.features, axis=1, keepdims=True)
    records = Encodings(
        probabilities=rows.probabilities,
        codes=rows.codes,
        features=features,
        ids=[f"picture-{number}" for number in range(100)],
        uris=[Path(f"{number}.jpg") for number in range(100)],
        attributes={"price": np.arange(100.0), "camera": ["a", "b"] * 50},
    )
    config = IndexConfig(
        classes=5, bits=64, dim=16, string_ids=True, attributes={"price": "float", "camera": "category"}
    )
    index = FaissIndex.create(None, config)
    index.add(records)
    queries = records[:2]
    where: Expression = (attribute("price") < 20) & ~attribute("camera").isin(["a"])
    among = Among(["picture-1", "picture-3"])
    matching: list[int] = index.matching(where, among=among).tolist()
    result = index.search(queries, where=where, among=among, exclude_self=True, diversity=0.5, cutoff=None, fill=False)
    print(matching, show(result), index.search(queries, where='price < 20 and camera == "a"').ids)
    within: RangeResult = index.search_range(queries, radius=1.5, by="distance", cutoff=None)
    print(len(within), [hit.key for hit in within[0]], within.offsets.tolist())
    print(show(index.search(joined_query(queries, records[5:6], weight=0.3))))
    for part in averaged_records(index, 2, power=0):
        print(len(part))
    print(show(index.search(expanded_queries(index, queries, index.search(queries, k=3), power=2))))
    groups: NearDuplicates = near_duplicates(index, max_hamming=20, max_distance=0.9, everywhere=True)
    print(len(groups), [group.tolist() for group in groups])


def open_or_report(path: str) -> FaissIndex | None:
    try:
        return FaissIndex.open(path, engine="faiss", device="cpu")
    except (NotAnIndexError, FormatVersionError, DamagedIndexError, IndexExistsError) as error:
        print(error)
    except (LockedError, ConcurrentWriteError, ServerError, StorageError, ClosedIndexError) as error:
        print(error.args)
    except (InvalidEncodingsError, InvalidParameterError, DuplicateIdError, UnknownIdError) as error:
        print(str(error))
    except (DeviceError, DataError, CheckpointError, MissingDependencyError, SemcutError) as error:
        print(type(error).__name__)
    return None


def learn(images: ImageSet, run: str) -> None:
    architecture = Architecture(backbone="small", classes=images.classes, image_size=32, bits=64, head="orthohash")
    checkpoint: Checkpoint = train(images, architecture, TrainConfig(epochs=1), run)
    net: SemanticHashNet = SemanticHashNet(architecture)
    encoder = Encoder(checkpoint)
    queries: Encodings = encoder.encode(list(images.files[:2]))
    print(net.architecture.bits, len(queries), queries.features.shape, Checkpoint.load(run).digest)


def take(network: str, run: str, images: list[str]) -> Checkpoint:
    choices = AdoptionChoices(bits=64, codes="itq", image_size=224, weights="imagenet")
    return adopt(network, run, images, choices=choices).checkpoint


def similar(index: str, files: list[str]) -> list[str | None]:
    with Connector.open(index) as connector:
        found: list[list[Hit]] = connector.search(files, k=5, ranking="fused")
        print(len(connector.index), connector.encoder.architecture.classes)
        return [hit.uri for hits in found for hit in hits if hit.distance < 1 and hit.relevance > 0.5]


def wrong(index: FaissIndex) -> None:
    index.search(batch(1), k="five")  # type: ignore[arg-type]
    index.search(batch(1)).ids.nonsense  # type: ignore[attr-defined]
    index.get([1]).ids.append(2)  # type: ignore[attr-defined]


if __name__ == "__main__":
    store(sys.argv[1])
    ask()
    open_or_report(sys.argv[1])
'''


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write both programs, and settings of pyright, into a directory."""
    place = tmp_path_factory.mktemp("typed")
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (place / "readme.py").write_text(snippet)
    (place / "program.py").write_text(PROGRAM.lstrip())
    settings = {
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": True,
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (place / "pyrightconfig.json").write_text(json.dumps(settings))
    return place


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this environment in a directory, without settings of mypy from environment variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MYPY")}
    return subprocess.run(
        [sys.executable, *command], cwd=place, capture_output=True, text=True, env=environment
    )  # fmt: skip


@pytest.mark.guides
def test_mypy_finds_nothing_wrong(programs: Path) -> None:
    done = run(programs, "-m", "mypy", "--strict", "--cache-dir", ".cache", "readme.py", "program.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.guides
def test_pyright_finds_nothing_wrong(programs: Path) -> None:
    done = run(programs, "-m", "basedpyright", "--pythonpath", sys.executable, "readme.py", "program.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.guides
def test_the_program_runs(programs: Path, tmp_path: Path) -> None:
    done = run(programs, "-W", "error", "program.py", str(tmp_path / "index"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_uses_every_public_name() -> None:
    used = {node.id for node in ast.walk(ast.parse(PROGRAM)) if isinstance(node, ast.Name)}
    assert set(semcut.__all__) <= used
