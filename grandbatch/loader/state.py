"""A loader's state: a position, and the windows and the order that it is a position in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grandbatch.errors import CheckpointError
from grandbatch.order import OrderSettings
from grandbatch.position import Position
from grandbatch.store import MatrixStore

STATE_FORMAT = 1


def make_state(position: Position, store: MatrixStore, settings: OrderSettings) -> dict[str, Any]:
    """Return the state that goes on at a position, as JSON types."""
    return {
        "format": STATE_FORMAT,
        "content_id": store.content_id,
        "order": settings.to_json(),
        "position": position.to_json(),
    }


def read_state(state: Mapping[str, Any], store: MatrixStore, settings: OrderSettings) -> Position:
    """Return the position of a state.

    Raises
    ------
    CheckpointError
        If the state is damaged, or of other windows or another order.
    """
    if not isinstance(state, Mapping) or state.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"not a loader's state of format {STATE_FORMAT}: {str(state)[:200]}; "
            "start again without it (--no-resume)"
        )
    if state.get("content_id") != store.content_id:
        raise CheckpointError(
            f"the state was taken on the windows {state.get('content_id')}, "
            f"{store.path} holds {store.content_id}; "
            "open the store it was taken on, or start again without it (--no-resume)"
        )
    settings.check_same(state.get("order"))
    position = Position.from_json(state.get("position", {}))
    if position.epoch < 0:
        raise CheckpointError(
            f"{position} has a negative epoch; start again without it (--no-resume)"
        )
    return position
