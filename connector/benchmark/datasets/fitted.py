"""Records fitted to real encodings, in any number and of any number of classes.

**One record** of label y is a smoothed bootstrap (Efron, "Bootstrap methods", Annals of Statistics 7, 1979): a record i
drawn from the source's records of that label, moved a little among its like. The records of a label, sorted by dominant
class and certainty, are cut into at most 64 strata of 20 or more. With x a record's centred logits log p (p floored at
1e-8) and its feature, mu the mean of x over the stratum of i, and two different records j, k of that stratum,

    x' = mu + sqrt(1 - h^2) (x_i - mu) + h (x_j - x_k) / sqrt(2)

x_j - x_k has mean 0 and twice the stratum's covariance, so x' has the mean and covariance of the stratum, and so of the
label, whatever h: the kernel that does not widen (Silverman and Young, "The bootstrap: to smooth or not to smooth?",
Biometrika 74, 1987). Then p = softmax, and features are L2-normalised if the source's are. The code is i's, where each
bit is with probability h^2 taken from j: every bit is set as often as in the source. All of p, code and feature come
from the same i, j, k, so they stay jointly distributed. Strata keep what is sure of a wrong class in the midst of that
class, where it spoils answers as in reality. h is drawn for each record, evenly from 0.125 to 0.375: a triple that is
drawn twice gives two different records. `likeness` compares source and result, which is how h was chosen. As many
records as the source has have a mAP@10 2 points above it (CIFAR-10, 50,000: 0.742 and 0.724; Tiny-ImageNet-200, 20,000:
0.395 and 0.375). It grows more than with real images: 43,000 generated from 2,150 of CIFAR-10 lie 5 points above 43,000
real ones. So compare methods on the same data, never grown data with its source.

Records come from the source's records, queries from its queries, each kind with its own means: no image is in both.

**Fewer classes** are a random subset of the source's, with the records of these labels only, and p restricted to them
and scaled to sum to 1, which is the softmax of those logits. The task gets easier, as it does in reality.

**More classes**, C > C0, are J = ceil(C / C0) copies of the source's; of the last copy a random subset if C is not a
multiple (where it gets easier, as above). Each copy is the whole source moved by an isometry of its own:

- features are turned around the source's mean feature, which stays where it is. Distances and the place of an
  ambiguous record between its classes are exactly the source's; classes of two copies are as far apart as unrelated
  classes are.
- the bits of codes are permuted among bits that are set about as often: Hamming distances are exactly the source's, and
  codes of two copies differ like those of unrelated classes.
- p_m goes to the record's own copy of class m, except for the share (1 - p_m) TAIL / (p_m + TAIL) of it, which is
  spread over all copies of m, unevenly. So a sure class stays sure and a doubtful one doubtful, each p changes by less
  than TAIL = 0.01, and what is small fills all C columns, as a network's outputs do: envelopes of cells are not made
  sparser than they are.

Not kept: large confusion between copies (a class is confused with as many others as in the source, never with more),
and the signs of features, if a network makes positive ones only.

**Frequencies** of the labels of records are equal or fall as 1 / rank^zipf, the ranks a random order of the classes.
Queries are always balanced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.class_variants import ClassVariants
from semcut.connector.benchmark.datasets.dataset import About, Dataset, begin, finish
from semcut.connector.benchmark.datasets.strata import Labels, Source, apart, cut
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress

SPREAD = 0.25  # the mean of h
_ADD = 50_000  # records per commit
_CHUNK = 4096  # rows computed at a time, so that they stay in the cache
_RECORDS, _QUERIES = 1, 2  # streams of random numbers


@dataclass(frozen=True, eq=False)
class Fit:
    """Real encodings to generate from.

    Attributes:
        name: of the source.
        records, queries: what records and queries are drawn from.
    """

    name: str
    records: Source
    queries: Source

    @staticmethod
    def of(source: Dataset | Encodings, labels: Labels | None = None, *, seed: int = 0) -> Fit:
        """Fit to a data set, or to encodings with labels.

        Args:
            source: a data set's records and queries are kept apart; of encodings, a random quarter of each class is
                what queries are drawn from.
            labels: (n,) of the encodings.
            seed: of that choice.

        Raises:
            DataError: a class has too few records or queries, or labels do not fit.
        """
        if isinstance(source, Dataset):
            parts = [
                Source.of(Encodings.concatenate(list(index.iterate())), label, what)
                for index, label, what in (
                    (source.index, source.record_labels, "records"),
                    (source.queries, source.query_labels, "queries"),
                )
            ]
            return Fit(source.about.name, parts[0], parts[1])
        if labels is None:
            raise DataError("encodings without labels cannot be fitted: give the label of each of them")
        labels = np.asarray(labels)
        asked = apart(source, labels, seed)
        return Fit(
            "encodings",
            Source.of(source[~asked], labels[~asked], "records"),
            Source.of(source[asked], labels[asked], "queries"),
        )

    @property
    def classes(self) -> int:
        """C0."""
        return int(self.records.logits.shape[1])

    @property
    def bits(self) -> int:
        """Length of a code."""
        return 8 * int(self.records.codes.shape[1])

    @property
    def dim(self) -> int:
        """D."""
        return int(self.records.features.shape[1])

    def generator(
        self,
        *,
        classes: int | None = None,
        zipf: float = 0.0,
        seed: int = 0,
        bits: int | None = None,
        queries: bool = False,
    ) -> Generator:
        """What makes records or queries of so many classes. Those of the same classes, bits and seed go together.

        Args:
            classes: C, at least 2. Default: as many as the source has.
            zipf: exponent of the frequencies of records, not negative.
            seed: of everything random. The same seed and the same calls give the same data.
            bits: keep this many bits of each code, the first ones. Default: all.
            queries: make queries, from the source's queries, instead of records.

        Raises:
            DataError: fewer than 2 classes, a negative zipf or seed, bits that are no multiple of 8 or too many.
        """
        classes = self.classes if classes is None else classes
        bits = self.bits if bits is None else bits
        if classes < 2 or not 0 <= zipf < np.inf or seed < 0:
            raise DataError(
                f"classes = {classes}, zipf = {zipf}, seed = {seed}: expected at least 2 classes, zipf and seed >= 0"
            )
        if bits % 8 or not 8 <= bits <= self.bits:
            raise DataError(f"bits = {bits}, expected a multiple of 8, at most the {self.bits} of the source")
        rng = np.random.default_rng([seed, 0])
        mean = self.records.features.mean(axis=0, dtype=np.float64).astype(np.float32)
        rates = np.unpackbits(self.records.codes[:, : bits // 8], axis=1).mean(axis=0)
        layout = ClassVariants.draw(classes, self.classes, mean, rates, rng)
        frequencies = np.power(1.0 + rng.permutation(classes), 0.0 if queries else -zipf)
        stream = np.random.default_rng([seed, _QUERIES if queries else _RECORDS])
        return Generator(self.queries if queries else self.records, layout, frequencies, bits, stream)


class Generator:
    """Makes encodings, batch after batch."""

    def __init__(
        self,
        source: Source,
        layout: ClassVariants,
        frequencies: NDArray[np.float64],
        bits: int,
        rng: np.random.Generator,
    ) -> None:
        chosen = layout.chosen
        rows = source.rows(chosen)
        self._sizes = np.diff(source.starts)[chosen]
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._edges = cut(self._sizes)
        self._stratum = np.repeat(np.arange(len(self._edges) - 1), np.diff(self._edges))
        self._values = np.hstack([source.logits[rows][:, chosen], source.features[rows]])
        self._means = np.add.reduceat(self._values, self._edges[:-1], axis=0, dtype=np.float64)
        self._means = (self._means / np.diff(self._edges)[:, None]).astype(np.float32)
        self._codes = np.ascontiguousarray(source.codes[rows, : bits // 8])
        self._cumulated = np.cumsum(frequencies / frequencies.sum())
        self._normalised, self._layout, self._rng = source.normalised, layout, rng

    def batch(self, n: int) -> tuple[Encodings, NDArray[np.int32]]:
        """The next n encodings, without ids and uris, and their (n,) int32 labels."""
        labels = np.searchsorted(self._cumulated[:-1], self._rng.random(n), side="right")
        probabilities = np.empty((n, len(self._cumulated)), np.float32)
        codes = np.empty((n, self._codes.shape[1]), np.uint8)
        features = np.empty((n, self._values.shape[1] - len(self._sizes)), np.float32)
        for start in range(0, n, _CHUNK):
            here = slice(start, start + _CHUNK)
            probabilities[here], codes[here], features[here] = self._rows(self._layout.columns[labels[here]])
        return Encodings(probabilities=probabilities, codes=codes, features=features), labels.astype(np.int32)

    def _rows(self, columns: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Probabilities, codes and features of one record for each of these columns of `Layout`."""
        rng, n, classes = self._rng, len(columns), len(self._sizes)
        label, copy = columns % classes, columns // classes
        i = self._starts[label] + (rng.random(n) * self._sizes[label]).astype(np.int64)
        stratum = self._stratum[i]
        start = self._edges[stratum]
        size = self._edges[stratum + 1] - start
        j = start + (rng.random(n) * size).astype(np.int64)
        k = start + (j - start + 1 + (rng.random(n) * (size - 1)).astype(np.int64)) % size
        h = SPREAD * rng.uniform(0.5, 1.5, (n, 1)).astype(np.float32)

        values, means, other = self._values[i], self._means[stratum], self._values[j]
        values -= means
        values *= np.sqrt(1 - h * h)
        values += means
        other -= self._values[k]
        other *= h / np.float32(np.sqrt(2))
        values += other

        logits, features = values[:, :classes], values[:, classes:]
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        replaced = np.packbits(rng.random((n, 8 * self._codes.shape[1]), dtype=np.float32) < h * h, axis=1)
        codes = (self._codes[i] & ~replaced) | (self._codes[j] & replaced)
        if self._normalised:
            features /= np.sqrt(np.vecdot(features, features))[:, None]
        features, codes = self._layout.move(features, codes, copy)
        return self._layout.spread(probabilities, copy, rng), codes, features


def fitted_dataset(
    path: Path,
    fit: Fit,
    *,
    name: str,
    classes: int,
    records: int,
    queries: int,
    zipf: float = 0.0,
    seed: int = 0,
    bits: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Make a data set of generated records and queries, streamed to the disk.

    Args:
        path: a new or empty directory.
        fit: what to generate from.
        name: of the data set.
        classes, zipf, seed, bits: as for `Fit.generator`.
        records, queries: how many, at least 1.
        progress: told how many records, of how many, have been made.

    Raises:
        DataError: an argument is out of range, or there is something at the path.
        StorageError: the disk refused.
    """
    if min(records, queries) < 1:
        raise DataError(f"records = {records}, queries = {queries}, expected at least 1 of each")
    generators = [
        fit.generator(classes=classes, zipf=zipf, seed=seed, bits=bits, queries=kind) for kind in (False, True)
    ]
    config = IndexConfig(classes=classes, bits=bits or fit.bits, dim=fit.dim)
    labels = []
    for target, generator, count in zip(begin(path), generators, (records, queries), strict=True):
        made = np.empty(count, np.int32)
        with FaissIndex.create(target, config, durability="close") as index:
            for start in range(0, count, _ADD):
                batch, label = generator.batch(min(_ADD, count - start))
                index.add(replace(batch, ids=np.arange(start, start + len(batch))))
                made[start : start + len(batch)] = label
                if progress is not None and generator is generators[0]:
                    progress(start + len(batch), count)
        labels.append(made)
    about = About(
        name=name,
        source=f"fitted to {fit.name}",
        records=records,
        queries=queries,
        classes=classes,
        bits=config.bits,
        dim=config.dim,
        zipf=zipf,
        seed=seed,
    )
    finish(path, about, labels[0], labels[1])
    return Dataset.open(path)
