"""Statistics gathered batch by batch, against numpy on everything at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.mappo import BatchStrategicTrainer, FeatureStatistics, feature_statistics


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    shift=st.sampled_from([0.0, 1e6]),
    holes=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
def test_batch_by_batch_is_all_at_once(sizes, shift, holes, seed):
    rng = np.random.default_rng(seed)
    parts = [shift + rng.normal(size=(n, 3)) for n in sizes]
    for part in parts:
        part[rng.random(part.shape) < holes] = rng.choice([np.nan, np.inf])
    found = FeatureStatistics(3)
    for part in parts:
        found.update(torch.from_numpy(part))
    for column in range(3):
        values = np.concatenate(parts)[:, column]
        values = values[np.isfinite(values)]
        assert found.count[column] == len(values)
        if len(values):
            assert float(found.mean[column]) == pytest.approx(values.mean(), rel=1e-12)
            assert float(found.std[column]) == pytest.approx(values.std(), abs=1e-8)
            assert float(found.min[column]) == values.min()
            assert float(found.max[column]) == values.max()


@pytest.mark.parametrize("hole", [None, torch.nan, -torch.inf])
def test_rows_in_windows_count_as_rows_in_a_list_do(hole):
    windows = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    if hole is not None:
        windows[2, 1, 0] = windows[:, :, 2] = hole
    found, wanted = FeatureStatistics(3), FeatureStatistics(3)
    found.update(windows[:, -4:])
    wanted.update(windows[:, -4:].reshape(-1, 3))
    for name, values in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], values, rtol=0, atol=0)
    assert found.min[1] == windows[:, -4:, 1].min()
    assert found.max[1] == windows[:, -4:, 1].max()


def test_a_saved_state_goes_on_where_it_was():
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    whole, first = FeatureStatistics(4), FeatureStatistics(4)
    whole.update(rows[:10])
    first.update(rows[:10])
    second = FeatureStatistics.from_state(first.state_dict(), 4)
    for one in (whole, second):
        one.update(rows[10:])
    assert all(torch.equal(a, second.state_dict()[k]) for k, a in whole.state_dict().items())
    with pytest.raises(ValueError, match="not the statistics of 5 features"):
        FeatureStatistics.from_state(first.state_dict(), 5)


def test_rows_that_neighbours_share_count_once(make_store):
    store = make_store(300, overlap=40)
    loader = gb.SlidingWindowDataLoader(store, shuffle=False)
    found = feature_statistics(loader, store.stride)
    first = int(store.first_row[0]) + store.overlap
    rows = gb.MatrixStore.open(store.path).matrices[:]
    unique = {}
    for start, matrix in zip(store.first_row[:], rows, strict=True):
        unique |= {int(start) + k: row for k, row in enumerate(matrix)}
    wanted = np.array([row for at, row in unique.items() if at >= first], np.float64)
    assert found.count.tolist() == [len(wanted)] * 13
    assert np.allclose(found.mean, wanted.mean(0), rtol=1e-12)
    assert np.allclose(found.std, wanted.std(0), rtol=1e-9)
    described = found.describe(store.feature_names)
    assert described["rsi"]["max"] == wanted[:, 4].max()


def test_padding_does_not_count(noise):
    weight = torch.ones(8)
    weight[5:] = 0
    found = feature_statistics([noise(8, weight=weight)])
    assert found.count.tolist() == [5 * 48] * 13


def test_nothing_to_count_and_other_features_are_refused():
    with pytest.raises(UsageError, match="no window"):
        feature_statistics([])
    with pytest.raises(UsageError, match="must have 3 features"):
        FeatureStatistics(3).update(torch.zeros(2, 4))


def test_a_trainer_normalises_by_its_training_split_alone(make_store):
    store = make_store(2000, overlap=40)
    splits = gb.split_store(store, {"train": 0.6, "test": 0.4})
    training = gb.SlidingWindowDataLoader(store, subset=splits["train"], shuffle=False)
    trainer = BatchStrategicTrainer.for_store(store, training, seed=3)
    wanted = feature_statistics(training, store.stride)
    saved = trainer.state_dict()["normalisation"]
    assert torch.allclose(saved["mean"].double(), wanted.mean, rtol=1e-6)
    assert torch.allclose(saved["std"].double(), wanted.std, rtol=1e-6)
    whole = BatchStrategicTrainer.for_store(store, seed=3)
    assert not torch.equal(saved["mean"], whole.state_dict()["normalisation"]["mean"])
    assert trainer.config == BatchStrategicTrainer.default_config(seed=3)
    assert trainer.stride == store.stride


def test_training_tells_how_far_the_features_have_moved(noise, changed):
    trainer = BatchStrategicTrainer(feature_mean=[0.0] * 13, feature_std=[2.0] * 13, stride=36)
    batch = noise(16)
    moved = batch.matrices.clone()
    moved[:, :, 6] += 7.0
    shift = trainer.train_batch(changed(batch, matrices=moved))["feature_shift"]
    wanted = moved[:, -36:, 6].double().mean() / 2
    assert shift == pytest.approx(float(wanted), rel=1e-6)
    assert trainer.statistics.count.tolist() == [16 * 36] * 13


def of_loader(store):
    loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=7))
    return loader, gb.feature_statistics(loader)


def test_statistics_of_a_loader_are_numpys_and_leave_it_where_it_stood(make_store):
    store = make_store(500, overlap=40)
    loader, found = of_loader(store)
    rows = store.matrices[:].reshape(-1, store.n_features).astype(np.float64)
    np.testing.assert_array_equal(found.count, len(rows))
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, rows.std(0), rtol=1e-9)
    np.testing.assert_array_equal(found.min, rows.min(0))
    np.testing.assert_array_equal(found.max, rows.max(0))
    assert loader.epoch == 0
    going = iter(loader)
    first = next(going).index.tolist()
    gb.feature_statistics(gb.SlidingWindowDataLoader(store))
    assert first == next(iter(of_loader(store)[0])).index.tolist()


def test_a_state_that_was_loaded_stays_in_force_after_statistics_of_the_whole_epoch(make_store):
    store = make_store(500, overlap=40)
    loader, found = of_loader(store)
    whole = [batch.index.tolist() for batch in loader]
    loader.set_epoch(0)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    assert gb.feature_statistics(loader).count.tolist() == found.count.tolist()
    assert [batch.index.tolist() for batch in loader] == whole[1:]


def test_a_normalised_batch_has_mean_0_and_deviation_1_over_the_split(make_store):
    store = make_store(500, overlap=40)
    loader, found = of_loader(store)
    batches = [batch.normalised(found) for batch in loader]
    rows = torch.cat([batch.matrices for batch in batches]).reshape(-1, store.n_features).double()
    moving = ~found.is_constant
    torch.testing.assert_close(rows.mean(0)[moving], torch.zeros(13).double()[moving], atol=1e-6,
                               rtol=0)  # fmt: skip
    torch.testing.assert_close(rows.std(0, correction=0)[moving], torch.ones(13).double()[moving],
                               atol=1e-5, rtol=0)  # fmt: skip
    batch = batches[0]
    index = batch.index.numpy()
    wanted = (store.matrices[:][index] - found.mean.numpy()) / found.std.numpy()
    np.testing.assert_allclose(batch.matrices[..., moving], wanted[..., moving.numpy()], rtol=1e-6)
    assert batch.matrices.dtype == torch.float32
    assert batch.next_return.shape == (7,)


def test_a_constant_feature_becomes_0_with_a_warning_that_names_it(noise):
    batch = noise(6)
    batch.matrices[..., 2] = 0.1
    found = feature_statistics([batch])
    with pytest.warns(UserWarning, match=r"constant in the statistics.*feature\(s\) 2$"):
        made = batch.normalised(found)
    assert not made.matrices[..., 2].any()
    assert made.matrices[..., 1].any()
    other = noise(6, seed=3)
    with pytest.warns(UserWarning, match="constant"):
        assert not other.normalised(found).matrices[..., 2].any()


def test_statistics_of_another_set_or_of_nothing_are_refused(noise):
    batch = noise(4)
    with pytest.raises(UsageError, match=r"statistics of \d+ features are needed, got those of 0"):
        batch.normalised(FeatureStatistics(batch.matrices.shape[2]))
    with pytest.raises(UsageError, match="gather them with feature_statistics"):
        batch.normalised(FeatureStatistics(2))
