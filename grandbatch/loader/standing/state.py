"""A loader's state: a position, and the windows and the order that it is a position in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grandbatch.errors import CheckpointError
from grandbatch.loader.context.contexts import Contexts
from grandbatch.order import OrderSettings
from grandbatch.position import Position
from grandbatch.store import MatrixStore

STATE_FORMAT = 1
_MOST_WORKERS = 2**16


def make_state(
    position: Position, store: MatrixStore, settings: OrderSettings, contexts: Contexts
) -> dict[str, Any]:
    """Return the state that goes on at a position, as JSON types."""
    return {
        "format": STATE_FORMAT,
        "content_id": store.content_id,
        "order": settings.to_json(),
        **({"context": contexts.to_json()} if contexts else {}),
        "position": position.to_json(),
    }


def read_state(
    state: Mapping[str, Any], store: MatrixStore, settings: OrderSettings, contexts: Contexts
) -> Position:
    """Return the position of a state.

    Raises
    ------
    CheckpointError
        If the state is damaged, or of other windows, another context or another order.
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
    contexts.check_same(state.get("context"))
    settings.check_same(state.get("order"))
    return Position.from_json(state.get("position", {}))


def read_skip(state: Mapping[str, Any]) -> int | None:
    """Return the turn that a state of a worker process has on its mind; None in any other.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    skip: int | None = state.get("skip")
    if skip is not None and (type(skip) is not int or not -1 <= skip < _MOST_WORKERS):
        raise CheckpointError(
            f"not a loader's state: its skip is {skip!r}; start again without it (--no-resume)"
        )
    return skip
