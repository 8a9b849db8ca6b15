"""Flags for windows of coarser bars, and the stores that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grandbatch.errors import UsageError
from grandbatch.store.reader import MatrixStore

HIERARCHICAL = "hierarchical"
"""Names no set, but a team that sees two."""

ContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        help="Store of coarser bars that a hierarchical team looks at, by its name: "
        "strategic=slow.zarr.",
    ),
]
MaxAge = Annotated[
    str | None,
    typer.Option(help="Leave out windows whose context is older than this, e.g. 2h."),
]

Leader = Annotated[
    Path | None,
    typer.Option(
        help="For hierarchical: checkpoints of a team trained on the context's store, whose "
        "exposures are seen as well."
    ),
]


def open_contexts(given: list[str] | None) -> dict[str, MatrixStore]:
    """Open the stores that `--context NAME=STORE` names.

    Raises
    ------
    UsageError
        If one is written otherwise, or a name comes twice.
    """
    found: dict[str, MatrixStore] = {}
    for entry in given or []:
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            raise UsageError(
                f"--context wants a name and a store, such as strategic=slow.zarr, got {entry!r}"
            )
        if name in found:
            raise UsageError(f"--context {name}=… is given twice; leave one out")
        found[name] = MatrixStore.open(path)
    return found


def sees_two(set_name: str, n_contexts: int, leader: Path | None) -> bool:
    """Tell whether `train` means a hierarchical team, rather than that of a set.

    Raises
    ------
    UsageError
        If there are contexts where no team looks at them, or none where one does.
    """
    if set_name == HIERARCHICAL:
        check_has_one(n_contexts)
        return True
    if n_contexts or leader is not None:
        raise UsageError(
            "--context and --leader are of a hierarchical team: grandbatch train hierarchical"
        )
    return False


def check_has_one(n_contexts: int) -> None:
    """Refuse another number of contexts than a hierarchical team looks at.

    Raises
    ------
    UsageError
        Saying how to give one.
    """
    if n_contexts != 1:
        raise UsageError(
            "a hierarchical team looks at one store of coarser bars: give "
            f"--context strategic=slow.zarr, once; got {n_contexts}"
        )
