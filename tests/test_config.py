"""Settings check themselves."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from grandbatch import BatchConfig
from grandbatch.errors import UsageError
from grandbatch.values.checks import parse_bytes


def test_defaults_are_those_of_the_documentation():
    config = BatchConfig()
    assert (config.batch_size, config.sequence_length, config.overlap) == (32, 48, 12)
    assert (config.prefetch_batches, config.max_memory_percent) == (2, 80.0)
    assert (config.checkpoint_frequency, config.num_workers, config.seed) == (100, 2, 0)
    assert (config.adaptive, config.min_batch_size, config.max_batch_size) == (True, 1, None)


def test_presets_are_those_of_the_two_sets():
    s, t = BatchConfig.strategic(), BatchConfig.tactical()
    assert (s.sequence_length, s.overlap, s.batch_size) == (48, 12, 32)
    assert (s.max_memory_percent, s.checkpoint_frequency) == (75.0, 100)
    assert (t.sequence_length, t.overlap, t.batch_size) == (60, 15, 64)
    assert (t.max_memory_percent, t.checkpoint_frequency) == (80.0, 200)


def test_length_and_overlap_are_the_stores_unless_they_are_given():
    def of_store(config):
        found = config.with_window(60, 15)
        return found.sequence_length, found.overlap

    assert of_store(BatchConfig()) == (60, 15)
    assert of_store(BatchConfig(overlap=12)) == (60, 12)
    assert of_store(BatchConfig(sequence_length=48)) == (48, 15)
    assert of_store(BatchConfig(sequence_length=8)) == (8, 15)
    assert of_store(dataclasses.replace(BatchConfig(), batch_size=3)) == (60, 15)
    assert of_store(pickle.loads(pickle.dumps(BatchConfig()))) == (60, 15)
    assert of_store(BatchConfig.strategic()) == (48, 12)
    assert BatchConfig() == BatchConfig(sequence_length=48, overlap=12)


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BatchConfig().batch_size = 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", "some"),
        ("batch_size", 1.5),
        ("sequence_length", 0),
        ("overlap", 48),
        ("overlap", -1),
        ("prefetch_batches", -1),
        ("max_memory_percent", 0),
        ("max_memory_percent", 100.1),
        ("max_memory_percent", float("nan")),
        ("max_memory_percent", "80"),
        ("checkpoint_frequency", 0),
        ("cache_bytes", -1),
        ("num_workers", 0),
        ("seed", -1),
        ("min_batch_size", 0),
        ("max_batch_size", 0),
        ("batch_size", True),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(field, value):
    with pytest.raises(UsageError, match=field):
        BatchConfig(**{field: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("700MiB", 700 * 2**20),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        (1024, 1024),
        ("4k", 4096),
        ("2Gi", 2 * 2**30),
        ("10", 10),
    ],
)
def test_sizes_are_read_with_their_units(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "0", "12 parsecs", "1e999"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        parse_bytes(text)
