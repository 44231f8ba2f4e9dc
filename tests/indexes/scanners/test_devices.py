"""The scanners for GPUs give the results of brute force, on the CPU and on a GPU if there is one; and they report which
device is missing or out of memory."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    DamagedIndexError,
    DeviceError,
    FaissIndex,
    IndexConfig,
    InvalidParameterError,
    search_tuning,
    searchable,
)
from semcut.indexes.scanners import gpu_features, gpu_segments, hamming_faiss_gpu, hamming_torch_gpu
from semcut.indexes.scanners.gpu_features import GpuFeatures
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import (
    PROPERTY,
    assert_same,
    assert_same_records,
    assert_shortlist,
    classified,
    each,
    filled,
    threads,
    worlds,
)
from tests.indexes.overrides import override
from tests.thorough import examples

CONFIG = IndexConfig(classes=6, bits=64, dim=8)
ENGINES = ("torch", "flat")
FEATURES = {
    "the CPU": lambda state, device: None,
    "the device": lambda state, device: GpuFeatures(hamming_torch_gpu.devices_named(device)[0], state.cells.config.dim),
}
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
TUNING = st.fixed_dictionaries(
    {},
    optional={
        (hamming_faiss_gpu, "MIN_CODES"): st.sampled_from([1, 8]),
        (gpu_segments, "MAX_MASKED"): st.sampled_from([0, 5]),
        (hamming_torch_gpu.TorchScanner, "block"): st.sampled_from([1, 3]),
        (hamming_torch_gpu, "_PAIRS"): st.just({"cpu": 7}),
        (gpu_features, "_BLOCK_BYTES"): st.sampled_from([1, 300]),
        (gpu_features, "_ELEMENTS"): st.just(50),
        (search_tuning.TUNING, "rather_all"): st.just(0),
        (search_tuning.TUNING, "first_scan"): st.just(1),
        (search_tuning.TUNING, "deeper"): st.just(2),
    },
)


def finds_no_gpu(engine: str) -> bool:
    return faiss.get_num_gpus() == 0 if engine == "flat" else not torch.cuda.is_available()


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    """Return each engine; on a GPU, only engines that find the GPU."""
    if request.node.get_closest_marker("gpu") and finds_no_gpu(request.param):
        pytest.skip(f"no GPU here that {'FAISS' if request.param == 'flat' else 'torch'} can use")
    return request.param


@settings(PROPERTY, max_examples=examples(50))
@given(world=worlds(), tuning=TUNING, removed_share=st.floats(0, 0.6), seed=st.integers(0, 2**32 - 1))
@each_device
@pytest.mark.parametrize("features", FEATURES)
def test_results_are_those_of_brute_force(features, engine, device, world, tuning, removed_share, seed):
    rng = np.random.default_rng(seed)
    removed = world.records.ids[rng.random(len(world.records)) < removed_share]
    reference = world.brute_force()
    with threads(1), pytest.MonkeyPatch.context() as patch:
        for (owner, name), value in tuning.items():
            override(patch, owner, name, value)
        patch.setattr(searchable, "build_gpu_features", FEATURES[features])
        index = filled(FaissIndex.create(None, world.config, engine=engine, device=device), world.batches)
        for cutoff, ranking in each(world):
            parameters = {"cutoff": cutoff, "ranking": ranking}
            result = index.search(world.queries, k=3, shortlist=5, **parameters, fill=False)
            assert_shortlist(result, world, k=3, shortlist=5, **parameters)
        for one in (index, reference):
            one.remove(removed)
        for cutoff, ranking in each(world):
            parameters = {"k": 4, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            assert_same(index.search(world.queries, **parameters), reference.search(world.queries, **parameters))
            parameters["shortlist"] = 6
            found = index.search(world.queries, **parameters)
            assert_same(found, reference.search(world.queries, **parameters))
            assert not np.isin(found.ids[found.ids >= 0], removed).any()


@each_device
def test_shortlists_beyond_what_a_gpu_returns_at_once(engine, device):
    rng = np.random.default_rng(0)
    records, queries = classified(rng, CONFIG, 6000), classified(rng, CONFIG, 5)
    indexes = [
        filled(FaissIndex.create(None, CONFIG, engine=name, device=where), [records])
        for name, where in ((engine, device), ("faiss", "cpu"))
    ]
    for shortlist in (1500, 3000):
        found, expected = (index.search(queries, k=1200, cutoff=0.1, shortlist=shortlist) for index in indexes)
        assert_same(found, expected)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_missing_is_one_error_and_nothing_is_made(engine, device, tmp_path):
    if not finds_no_gpu(engine):
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(DeviceError, match=f'device = {device} does not exist: .*use device="cpu"'):
        FaissIndex.create(tmp_path / "index", CONFIG, engine=engine, device=device)
    assert not (tmp_path / "index").exists()
    FaissIndex.create(tmp_path / "index", CONFIG).close()
    with pytest.raises(DeviceError):
        FaissIndex.open(tmp_path / "index", engine=engine, device=device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", 0, None])
def test_an_unknown_name_of_a_device_is_refused(device):
    with pytest.raises(InvalidParameterError, match=r"device = .*, expected cpu, cuda or cuda with a number"):
        FaissIndex.create(None, CONFIG, device=device)


@pytest.mark.parametrize("engine", ["compiled", "faiss"])
def test_engines_for_the_cpu_do_not_run_on_gpus(engine):
    with pytest.raises(InvalidParameterError, match="is for device = cpu: on cuda use torch or flat"):
        FaissIndex.create(None, CONFIG, engine=engine, device="cuda")


def out_of_memory(*arguments):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore of it.")


def test_a_gpu_that_is_out_of_memory_is_one_error_and_the_index_stays_usable():
    rng = np.random.default_rng(1)
    records, queries = classified(rng, CONFIG, 300), classified(rng, CONFIG, 4)
    index = filled(FaissIndex.create(None, CONFIG, engine="torch"), [records])
    before = index.search(queries, k=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming_torch_gpu, "_signs", out_of_memory)
        with pytest.raises(
            DeviceError, match=r"cpu is out of memory \(CUDA out of memory. Tried to allocate 20.00 MiB.\)"
        ):
            index.search(queries, k=5)
    assert_same(index.search(queries, k=5), before)


class RecordingFeatures(GpuFeatures):
    """Features on the CPU, as on a GPU. Each comparison appends the number of stored rows to `compared`."""

    def __init__(self, compared: list[int]) -> None:
        super().__init__("cpu", CONFIG.dim)
        self._compared = compared

    def squared_distances(self, queries, rows):
        self._compared.append(self._rows)
        return super().squared_distances(queries, rows)


@pytest.fixture
def compared(monkeypatch) -> list[int]:
    """Return the row counts of all comparisons; indexes use `RecordingFeatures` during the test."""
    compared: list[int] = []
    monkeypatch.setattr(searchable, "build_gpu_features", lambda state, device: RecordingFeatures(compared))
    return compared


def test_features_that_do_not_fit_are_compared_on_the_cpu(compared, tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    records, queries = classified(rng, CONFIG, 300), classified(rng, CONFIG, 4)
    monkeypatch.setattr(gpu_features, "_BLOCK_BYTES", 4 * CONFIG.dim * 64)
    index = filled(FaissIndex.create(tmp_path / "index", CONFIG, engine="torch"), [records[:100]])
    index.search(queries, k=5)
    index.add(records[100:110])
    index.search(queries, k=5)
    assert set(compared) == {100, 110}
    with monkeypatch.context() as patch:
        patch.setattr(RecordingFeatures, "_empty", out_of_memory)
        index.add(records[110:])
    found = index.search(queries, k=5, shortlist=None)
    assert set(compared) == {100, 110}
    assert index._searchable._features._blocks == []
    index.compact()
    assert_same(index.search(queries, k=5, shortlist=None), found)
    assert set(compared) == {100, 110, 300}
    assert_same(filled(FaissIndex.create(None, CONFIG), [records]).search(queries, k=5, shortlist=None), found)


def test_a_gpu_without_memory_to_compare_leaves_it_to_the_cpu(compared, monkeypatch):
    rng = np.random.default_rng(5)
    records, queries = classified(rng, CONFIG, 300), classified(rng, CONFIG, 4)
    index = filled(FaissIndex.create(None, CONFIG, engine="torch"), [records])
    expected = index.search(queries, k=5, shortlist=None)
    monkeypatch.setattr(torch.Tensor, "square_", out_of_memory)
    assert_same(index.search(queries, k=5, shortlist=None), expected)
    assert len(compared) >= 2


def test_damaged_features_do_not_keep_an_index_from_opening(compared, tmp_path):
    rng = np.random.default_rng(6)
    records = stored_values(CONFIG, classified(rng, CONFIG, 1000))
    with filled(FaissIndex.create(tmp_path / "index", CONFIG), [records]) as index:
        ids = index.snapshot.columns.ids.copy()
    (file,) = (tmp_path / "index").glob("**/features*")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # of the last record
    file.write_bytes(content)
    with FaissIndex.open(tmp_path / "index", engine="torch") as index:
        assert_same_records(index.get(ids[:50]), records[[np.flatnonzero(records.ids == i)[0] for i in ids[:50]]])
        with pytest.raises(DamagedIndexError):
            index.get(ids[-1:])
    assert compared == []


def test_devices_are_found_by_name():
    assert gpu_segments.devices_among("cpu", 0, "none") == ("cpu",)
    assert gpu_segments.devices_among("cuda", 2, "none") == ("cuda:0", "cuda:1")
    assert gpu_segments.devices_among("cuda:1", 2, "none") == ("cuda:1",)
    with pytest.raises(DeviceError, match="there are cuda:0, cuda:1"):
        gpu_segments.devices_among("cuda:2", 2, "none")


@pytest.mark.parametrize("kind", [hamming_torch_gpu.TorchScanner, hamming_faiss_gpu.FlatScanner])
def test_segments_stay_few(kind):
    engine = kind(64)
    rng = np.random.default_rng(2)
    for first in range(0, 4000, 40):
        engine.add(rng.integers(0, 256, (40, 8), np.uint8), np.arange(first, first + 40), rng.integers(0, 9, 40))
    (segments,) = engine._segments.values()
    assert sum(map(len, segments)) == 4000
    assert len(segments) <= 8


def test_codes_are_divided_evenly_and_by_cells():
    engine = hamming_torch_gpu.TorchScanner(64, ["cpu", "cpu:0"])
    rng = np.random.default_rng(3)
    cells = rng.integers(0, 50, 10_000)
    engine.add(rng.integers(0, 256, (10_000, 8), np.uint8), np.arange(10_000), cells)
    first, second = (segments[0].cells() for segments in engine._segments.values())
    assert not set(first.tolist()) & set(second.tolist())
    assert abs(len(first) - len(second)) < 500
