"""What is public is complete, sorted, documented, and the same in every list."""

from __future__ import annotations

import inspect
import pickle

import pytest

import grandbatch
from grandbatch import errors

PROMISED = [
    "read_bars",
    "add_features",
    "STRATEGIC",
    "TACTICAL",
    "build_store",
    "MatrixStore",
    "BatchConfig",
    "SlidingWindowDataLoader",
    "BatchProcessor",
    "DataStreamer",
    "CheckpointManager",
    "MemoryMonitor",
    "calculate_optimal_batch_size",
    "create_large_dataset_simulation",
    "Feature",
    "FeatureSet",
    "Trainer",
]


def test_every_promised_name_is_there():
    assert set(PROMISED) <= set(grandbatch.__all__)


def test_all_is_sorted_as_ruff_sorts_it_and_every_name_resolves():
    assert len(set(grandbatch.__all__)) == len(grandbatch.__all__)
    assert set(grandbatch.__all__) == {*grandbatch._HOMES, "__version__"}
    for name in grandbatch.__all__:
        assert getattr(grandbatch, name) is not None
    assert dir(grandbatch) == sorted(grandbatch.__all__)


@pytest.mark.parametrize("name", sorted(set(grandbatch.__all__) - {"__version__"}))
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(getattr(grandbatch, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        grandbatch.nothing  # noqa: B018


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree_and_survives_pickling(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.GrandbatchError)
    assert name in errors.__doc__
    assert kind.exit_code in (1, 2)
    copy = pickle.loads(pickle.dumps(kind("what was got")))
    assert (type(copy), str(copy)) == (kind, "what was got")
