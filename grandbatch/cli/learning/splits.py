"""Flags for parts of a store: what is learnt from, validated on, and kept for the end."""

from __future__ import annotations

import logging
import math
from typing import Annotated

import typer

from grandbatch.errors import UsageError
from grandbatch.splits import Split, split_store
from grandbatch.store.reader import MatrixStore
from grandbatch.training.provenance import TEST, TRAIN
from grandbatch.values.times import to_nanoseconds

_log = logging.getLogger("grandbatch")

_ROUNDING = 1e-9

SplitShares = Annotated[
    str | None,
    typer.Option(
        help="Shares of the windows, in time: train,validation,test or train,test; e.g. "
        "0.7,0.15,0.15. The test is kept for grandbatch evaluate."
    ),
]
TrainUntil = Annotated[
    str | None, typer.Option(help="Instead of shares: learn from windows before this time.")
]
TestFrom = Annotated[
    str | None,
    typer.Option(help="Keep windows from this time on; validate on those in between."),
]
Embargo = Annotated[str, typer.Option(help="Time left out between splits, e.g. 1D.")]


def make_splits(
    store: MatrixStore,
    shares: str | None,
    train_until: str | None,
    test_from: str | None,
    embargo: str,
) -> dict[str, Split] | None:
    """Make the splits that flags ask for; None where they ask for none.

    Raises
    ------
    UsageError
        If they contradict each other, or a split has no window.
    """
    if shares is None and train_until is None and test_from is None:
        if embargo != "0":
            raise UsageError("--embargo lies between splits: give --split 0.7,0.15,0.15 as well")
        return None
    if shares is not None:
        if train_until is not None or test_from is not None:
            raise UsageError("--split gives shares, --train-until and --test-from times; give one")
        parts = _read_shares(shares)
        made = split_store(store, parts, embargo=embargo)
        left = 1.0 - math.fsum(parts.values())
        if left > _ROUNDING:
            _log.warning(
                "--split %s leaves the last %.3g %% of the windows out: nothing learns from them, "
                "and nothing is judged by them",
                shares,
                100 * left,
            )
        return made
    if train_until is None or test_from is None:
        raise UsageError("--train-until and --test-from belong together; give both")
    bounds: dict[str, tuple[str | None, str | None]] = {TRAIN: (None, train_until)}
    between = to_nanoseconds(train_until, "--train-until"), to_nanoseconds(test_from, "--test-from")
    if between[0] < between[1]:
        bounds["validation"] = (train_until, test_from)
    return split_store(store, {**bounds, TEST: (test_from, None)}, embargo=embargo)


def _read_shares(text: str) -> dict[str, float]:
    try:
        shares = [float(part) for part in text.split(",")]
        names = {2: (TRAIN, TEST), 3: (TRAIN, "validation", TEST)}[len(shares)]
    except (KeyError, ValueError):
        raise UsageError(
            "--split wants the shares of train, validation and test, such as 0.7,0.15,0.15, or of "
            f"train and test, such as 0.8,0.2; got {text!r}"
        ) from None
    return dict(zip(names, shares, strict=True))
