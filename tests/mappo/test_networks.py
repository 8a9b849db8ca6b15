"""What the networks see."""

from __future__ import annotations

import pytest
import torch

from grandbatch.errors import UsageError
from grandbatch.mappo import MappoConfig
from grandbatch.mappo.networks import Summary, build_actor, observe


def test_the_summary_is_the_means_of_the_normalised_last_rows():
    config = MappoConfig(sequence_length=6, n_features=2, spans=(1, 3))
    summary = Summary(config, [1.0, 2.0], [2.0, 0.0])
    matrices = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0))
    normal = (matrices - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 1.0])
    expected = torch.cat([normal[:, 5], normal[:, 3:].mean(1)], dim=1)
    assert torch.allclose(summary(matrices), expected, atol=1e-6)


def test_without_statistics_features_are_taken_as_they_are():
    config = MappoConfig(sequence_length=2, n_features=1, spans=(1,))
    assert Summary(config, None, None)(torch.tensor([[[9.0], [3.0]]])).tolist() == [[3.0]]


def test_outliers_are_cut_off():
    config = MappoConfig(sequence_length=1, n_features=1, spans=(1,), feature_clip=5.0)
    assert Summary(config, [0.0], [1.0])(torch.tensor([[[1e9]], [[-7.0]]])).tolist() == [[5], [-5]]


@pytest.mark.parametrize("bad", [[1.0], [1.0, float("nan")], [[1.0, 2.0]], [1.0, 2.0, 3.0]])
def test_statistics_must_be_one_finite_number_per_feature(bad):
    config = MappoConfig(n_features=2)
    with pytest.raises(UsageError, match="feature_mean must be 2 finite"):
        Summary(config, bad, None)
    with pytest.raises(UsageError, match="feature_std"):
        Summary(config, None, bad)
    with pytest.raises(UsageError, match="must not be negative"):
        Summary(config, None, [1.0, -1.0])


def test_every_agent_sees_window_and_exposure_and_decides_with_its_own_weights():
    actor = build_actor(MappoConfig(), 5, torch.Generator().manual_seed(0))
    seen = observe(torch.ones(2, 4), torch.tensor([0.5, -0.5], dtype=torch.float64), 3)
    assert seen.shape == (2, 3, 5)
    assert seen[:, :, -1].tolist() == [[0.5] * 3, [-0.5] * 3]
    logits = actor(seen)
    assert logits.shape == (2, 3, 5)
    assert not torch.equal(logits[0, 0], logits[0, 1])
