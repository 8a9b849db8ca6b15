"""A position goes through JSON unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grandbatch.errors import CheckpointError
from grandbatch.position import Position, Span

numbers = st.integers(0, 2**40)
spans = st.builds(Span, numbers, numbers, numbers)
positions = st.builds(
    Position,
    epoch=numbers,
    step=numbers,
    chunk_index=st.integers(-1, 2**40),
    offset=numbers,
    next_block=numbers,
    open_spans=st.lists(st.lists(spans, max_size=3).map(tuple), max_size=4).map(tuple),
)


@given(positions)
def test_a_position_read_from_its_json_is_the_same(position):
    assert Position.from_json(json.loads(json.dumps(position.to_json()))) == position


@pytest.mark.parametrize("value", [{}, {"epoch": 1}, {"epoch": "x"}, []])
def test_what_is_no_position_is_refused(value):
    with pytest.raises(CheckpointError, match="not a position"):
        Position.from_json(value)
