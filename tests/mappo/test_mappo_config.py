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
