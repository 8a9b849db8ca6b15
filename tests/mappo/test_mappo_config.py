"""Settings of a MAPPO trainer."""

from __future__ import annotations

import json

import pytest

from grandbatch.errors import UsageError
from grandbatch.mappo import MappoConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agents", ()),
        ("agents", ("a", "a")),
        ("sequence_length", 0),
        ("n_features", 1.5),
        ("spans", ()),
        ("spans", (49,)),
        ("hidden_sizes", (0,)),
        ("epochs", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("gamma", 1.1),
        ("cost", -1e-4),
        ("seed", -1),
        ("dropout", 0.95),
        ("features", ("one",)),
        ("final_learning_rate", 0.0),
        ("final_entropy_coefficient", -1.0),
        ("schedule_batches", -1),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match=field):
        MappoConfig(**{field: value})


def test_the_two_sets_have_their_agents_and_shapes():
    strategic, tactical = MappoConfig.strategic(), MappoConfig.tactical(seed=3)
    assert strategic.agents == ("mlmi", "nwrqk", "regime")
    assert (strategic.sequence_length, strategic.n_features) == (48, 13)
    assert tactical.agents == ("fvg", "momentum", "entry")
    assert (tactical.sequence_length, tactical.n_features, tactical.seed) == (60, 7, 3)


def test_plain_settings_go_through_json_unchanged():
    plain = MappoConfig().to_plain()
    assert json.loads(json.dumps(plain)) == plain


def test_learning_rate_and_entropy_fall_along_half_a_cosine():
    config = MappoConfig(
        learning_rate=1e-3,
        final_learning_rate=2e-4,
        entropy_coefficient=0.01,
        final_entropy_coefficient=0.03,
        schedule_batches=100,
    )
    rates = [config.learning_rate_at(batch) for batch in range(0, 201, 25)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1e-3)
    assert rates[2] == pytest.approx(6e-4)
    assert set(rates[4:]) == {2e-4}
    assert config.entropy_coefficient_at(50) == pytest.approx(0.02)
    assert config.entropy_coefficient_at(10_000) == 0.03
    assert MappoConfig(schedule_batches=0).learning_rate_at(0) == 1e-4
