"""Settings are checked when they are created, and the message says which setting is wrong and why."""

from __future__ import annotations

import copy
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given

from semcut.indexes import IndexConfig, InvalidParameterError, SearchParams
from semcut.indexes.search_params import search_params
from tests.indexes.generate import PROPERTY, configs

GOOD = {"classes": 3, "bits": 64, "dim": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 63}, "bits = 63.*multiple of 8"),
        ({"bits": 16}, "bits = 16.*32"),
        ({"bits": 0}, "bits = 0.*32"),
        ({"bits": 2048}, "bits = 2048.*1024"),
        ({"bits": 64.5}, "bits = 64.5.*integer"),
        ({"bits": None}, "bits = None.*integer"),
        ({"classes": 1}, "classes = 1.*2"),
        ({"classes": -3}, "classes = -3.*2"),
        ({"classes": 10_001}, "classes = 10001.*10000"),
        ({"classes": "many"}, "classes = 'many'.*integer"),
        ({"classes": float("nan")}, "classes = nan.*finite"),
        ({"dim": 0}, "dim = 0.*1"),
        ({"dim": 65_537}, "dim = 65537.*65536"),
        ({"groups": -1}, "groups = -1.*0"),
        ({"groups": 65}, "groups = 65.*64"),
        ({"colour": 1}, "colour = 1.*no such setting"),
        ({"prior": (0.5, 0.5)}, r"prior has 2 entries, expected one per class \(3\)"),
        ({"prior": (0.5, 0.5, 0)}, r"prior.2 = 0.*greater than 0"),
        ({"prior": (0.5, -0.5, 1)}, r"prior.1 = -0.5.*greater than 0"),
        ({"prior": (0.5, float("nan"), 1)}, r"prior.1 = nan"),
        ({"prior": (0.5, float("inf"), 1)}, r"prior.1 = inf"),
        ({"prior": np.ones((3, 1))}, r"prior.0 = \[1.0\]"),
        ({"prior": np.ones(2)}, "prior has 2 entries"),
        ({"prior": [-1] * 4}, "^the prior has 4 entries"),
        ({"similarity": [[-1] * 3] * 2}, "^the similarity is not 3 x 3"),
        ({"similarity": [[-1] * 3] * 2 + [(1,)]}, "^the similarity is not 3 x 3"),
        ({"similarity": {(1, 2)}}, "^the similarity is not 3 x 3"),
        ({"prior": 0.5}, r"prior = 0.5"),
        ({"similarity": np.ones((3, 2))}, "not 3 x 3"),
        ({"similarity": np.ones((2, 2))}, "not 3 x 3"),
        ({"classes": 4097, "similarity": [[1.0]]}, "there are 4097 classes: a similarity is for at most 4096"),
        ({"similarity": np.ones(3)}, r"similarity.0 = 1.0"),
        ({"similarity": [[1, 0, 0], [0, 1], [0, 0, 1]]}, "not 3 x 3"),
        ({"similarity": [[1, 0.5, 0], [0.4, 1, 0], [0, 0, 1]]}, "not symmetric"),
        ({"similarity": [[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 1]]}, r"similarity.0.1 = -0.5.*greater than or equal to 0"),
        ({"similarity": [[1, np.nan, 0], [np.nan, 1, 0], [0, 0, 1]]}, r"similarity.0.1 = nan"),
        ({"similarity": [[np.inf, 0, 0], [0, 1, 0], [0, 0, 1]]}, r"similarity.0.0 = inf"),
        ({"prior": (1, 1, 1), "similarity": np.eye(3)}, "prior or a similarity, not both"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        IndexConfig(**GOOD | settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchParams(k=5, shortlist=2), "a shortlist of 2 cannot give k = 5 results: raise the shortlist"),
        (lambda: IndexConfig(classes=2, bits=64, dim=3, prior=(1, 2, 3)), "the prior has 3 entries, expected one"),
        (lambda: IndexConfig(classes=2, bits=64, dim=3, prior=(1, -1)), "prior.1 = -1: expected greater than 0"),
        (lambda: SearchParams(k=1.5), "k = 1.5: expected a valid integer, got a number with a fractional part"),
        (lambda: SearchParams(ranking="x"), "ranking = 'x': expected 'distance', 'fused' or 'relevance'"),
        (lambda: IndexConfig(), "classes is required; bits is required; dim is required"),
    ],
)
def test_an_error_is_in_plain_words(make, message):
    with pytest.raises(InvalidParameterError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(InvalidParameterError, match=r"dim.*required"):
        IndexConfig(classes=3, bits=64)


def test_a_message_stays_short_whatever_was_given():
    with pytest.raises(InvalidParameterError) as error:
        IndexConfig(classes="x" * 10_000, bits=64, dim=8)
    assert len(str(error.value)) < 300


def test_a_configuration_cannot_be_changed():
    config = IndexConfig(**GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.bits = 128


def test_priors_and_similarities_may_be_arrays():
    assert IndexConfig(**GOOD, prior=np.array([1, 2, 3])).prior == (1, 2, 3)
    assert IndexConfig(**GOOD, similarity=np.eye(3)).similarity == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert IndexConfig(**GOOD, similarity=np.eye(3, dtype=np.float32)).similarity == ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@PROPERTY
@given(config=configs())
def test_a_configuration_survives_being_written_down(config):
    assert IndexConfig(**IndexConfig.model_validate_json(config.model_dump_json()).model_dump()) == config


@pytest.mark.parametrize(
    ("classes", "groups"), [(2, 2), (10, 10), (16, 16), (100, 16), (256, 16), (1000, 4), (4096, 1), (10_000, 1)]
)
def test_the_default_number_of_groups_keeps_the_number_of_cells_reasonable(classes, groups):
    assert IndexConfig(classes=classes, bits=64, dim=8).groups == groups


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k = 0.*1"),
        ({"k": -1}, "k = -1.*1"),
        ({"k": 2.5}, "k = 2.5.*integer"),
        ({"k": None}, "k = None"),
        ({"shortlist": 0}, "shortlist = 0.*1"),
        ({"shortlist": -5}, "shortlist = -5.*1"),
        ({"shortlist": 5.5}, "shortlist = 5.5.*integer"),
        ({"shortlist": 5, "k": 6}, "shortlist of 5 cannot give k = 6"),
        ({"cutoff": -0.1}, "cutoff = -0.1.*0"),
        ({"cutoff": 1.0}, "cutoff = 1.0.*less than 1"),
        ({"cutoff": float("nan")}, "cutoff = nan"),
        ({"cutoff": float("inf")}, "cutoff = inf"),
        ({"cutoff": "x"}, "cutoff = 'x'.*number"),
        ({"fill": "maybe"}, "fill = 'maybe'"),
        ({"ranking": "best"}, "ranking = 'best'.*'distance', 'fused' or 'relevance'"),
        ({"ranking": None}, "ranking = None"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        SearchParams(**settings)


@pytest.mark.parametrize("number", [np.int64(7), np.int32(7), np.uint8(7)])
def test_numpy_integers_are_integers(number):
    params = SearchParams(k=number, shortlist=number)
    assert (params.k, params.shortlist) == (7, 7)
    assert type(params.k) is int


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), np.float16(0.25)])
def test_numpy_floats_are_floats(number):
    assert SearchParams(cutoff=number).cutoff == 0.25


def test_a_shortlist_may_be_as_long_as_the_result():
    assert SearchParams(k=7, shortlist=7).shortlist == 7


def test_results_that_would_fill_the_memory_are_refused():
    SearchParams(k=10, shortlist=None).check(10**7)
    with pytest.raises(InvalidParameterError, match=r"10000001 queries with k = 10 .*at most 100000000"):
        SearchParams(k=10, shortlist=None).check(10**7 + 1)


@pytest.mark.parametrize("k", [1, np.int64(1), True, 1.0, "1", np.array(1), [1], None])
def test_parameters_that_were_checked_before_let_nothing_else_through(k):
    """A value that equals a number need not be a valid number."""
    search_params(1, 0.5, 1, "distance")
    try:
        expected = SearchParams(k=k, cutoff=0.5, shortlist=1, ranking="distance")
    except InvalidParameterError as error:
        with pytest.raises(InvalidParameterError, match=re.escape(str(error))):
            search_params(k, 0.5, 1, "distance")
    else:
        assert search_params(k, 0.5, 1, "distance") == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda types: types.__setitem__("stars", "int"),
        lambda types: types.__delitem__("price"),
        lambda types: types.__ior__({"stars": "int"}),
        lambda types: types.clear(),
        lambda types: types.pop("price"),
        lambda types: types.popitem(),
        lambda types: types.setdefault("stars", "int"),
        lambda types: types.update(stars="int"),
    ],
)
def test_the_attributes_of_a_configuration_cannot_be_changed(change):
    given = {"price": "float"}
    for attributes in (given, {}):
        config = IndexConfig(**GOOD, attributes=attributes)
        with pytest.raises(InvalidParameterError, match=r"^the attributes of a configuration cannot be changed: make"):
            change(config.attributes)
        assert config == IndexConfig(**GOOD, attributes=attributes)
    given["stars"] = "int"  # the caller's own
    assert IndexConfig(**GOOD, attributes={"price": "float"}).attributes == {"price": "float"}


@pytest.mark.parametrize("attributes", [{}, {"price": "float", "tags": "categories"}])
def test_a_configuration_with_fixed_attributes_is_copied_and_written_as_any_other(attributes):
    config = IndexConfig(**GOOD, attributes=attributes)
    assert config.attributes == attributes
    assert json.loads(json.dumps(config.attributes)) == attributes
    assert type(config.model_dump()["attributes"]) is dict
    for same in (
        IndexConfig(**config.model_dump()),
        IndexConfig.model_validate_json(config.model_dump_json()),
        IndexConfig.model_validate(config),
        config.model_copy(),
        config.model_copy(deep=True),
        copy.copy(config),
        copy.deepcopy(config),
        *(pickle.loads(pickle.dumps(config, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
    ):
        assert same == config
        assert hash(same) == hash(config)
        assert same.written() == config.written()
        assert type(same.attributes) is type(config.attributes)
        assert list(same.attributes) == list(attributes)
