"""What extra columns may be called, and what their rules change of a fingerprint."""

from __future__ import annotations

import pytest

from grandbatch.bars import BarRules
from grandbatch.errors import UsageError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"extra": "vwap"}, "extra must be a list of names"),
        ({"extra": ["close"]}, "extra has 'close', which is no extra column"),
        ({"extra": ["Symbol"]}, "extra has 'Symbol', which is no extra column"),
        ({"extra": ["vwap", "vwap"]}, "'vwap' twice"),
        ({"extra": [""]}, "names without blanks around them, got ''"),
        ({"extra": [" vwap"]}, "names without blanks around them, got ' vwap'"),
        ({"extra": [7]}, "names without blanks around them, got 7"),
        ({"fill": {"vwap": "last"}}, "fill has 'vwap', which extra doesn't name"),
        (
            {"extra": ["trades"], "fill": {"vwap": "last"}},
            "which extra doesn't name; choose from trades",
        ),
        ({"extra": ["vwap"], "fill": {"vwap": "mean"}}, "must be require, zero, last, got 'mean'"),
        ({"extra": ["vwap"], "fill": "last"}, "fill must map names to fills"),
        ({"columns": {"vwap": "VWAP price"}}, "columns maps 'vwap', .* or name it in extra"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        BarRules(**given)


def test_rules_without_extra_columns_have_the_identity_that_they_had():
    assert {"extra", "fill"}.isdisjoint(BarRules().identity())


def test_names_their_order_and_their_fills_are_part_of_the_identity():
    several = [
        BarRules(),
        BarRules(extra=["vwap", "trades"]),
        BarRules(extra=["trades", "vwap"]),
        BarRules(extra=["vwap", "trades"], fill={"vwap": "last"}),
        BarRules(extra=["vwap", "trades"], fill={"vwap": "zero"}),
    ]
    assert len({str(rules.identity()) for rules in several}) == len(several)


def test_require_is_what_stands_where_nothing_is_said():
    said = BarRules(extra=["vwap"], fill={"vwap": "require"})
    assert said.identity() == BarRules(extra=["vwap"]).identity()
    assert said.fill == {"vwap": "require"}
