"""`evaluate` and `evaluate_walk_forward`: the public calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.evaluation.chance import curves_of_chance, judge
from grandbatch.evaluation.performance import Market
from grandbatch.evaluation.results import (
    BUY_AND_HOLD,
    Evaluation,
    SymbolResult,
    Track,
    thinned,
)
from grandbatch.evaluation.walking import Tape, decide, read_tape
from grandbatch.splits.split import Split
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Float64
from grandbatch.values.times import shown

if TYPE_CHECKING:
    from grandbatch.loader.context.contexts import Contexts
    from grandbatch.values.times import Duration

BASIS_POINT = 1e-4
_TAKEN = ("team", "mean", BUY_AND_HOLD, "flat", "random")


def evaluate(
    policies: Any,
    store: MatrixStore,
    subset: Split | None = None,
    *,
    cost: float = BASIS_POINT,
    draws: int = 999,
    seed: int = 0,
    level: float = 0.05,
    against: Mapping[str, Any] | None = None,
    context: Mapping[str, MatrixStore] | None = None,
    max_age: Duration | None = None,
) -> Evaluation:
    """Let policies trade the windows of a split, bar by bar, without learning.

    A policy decides at a window's last bar, holds over the bar after it, and earns
    exposure · return - cost · |change|. It starts each segment flat, and ends it so.

    Parameters
    ----------
    policies : policy or sequence of policies
        Trainers of different seeds; or functions of (B, L, F) float32 windows and (B,) float64
        exposures held that give (B,) exposures from -1 to 1, and depend on nothing else.
    store : MatrixStore
        At stride 1. Training may have used another store of the same features.
    subset : Split, optional
        The test split; by default all windows.
    cost : float
        Per unit of exposure changed, in return units (1e-4 is one basis point).
    draws : int
        Random shifts that the result is compared with.
    seed : int
        Of these.
    level : float
        Of the tests whether the result can be told from random.
    against : mapping of str to policy, optional
        Others that trade the same windows, to be shown beside.
    context : mapping of str to MatrixStore, optional
        As of `SlidingWindowDataLoader`: windows without one aren't traded. Teams see those that
        they were trained with; functions are given the windows, by name, as a third argument.
    max_age : str or timedelta, optional
        As of `SlidingWindowDataLoader`.

    Returns
    -------
    Evaluation

    Raises
    ------
    StoreMismatchError
        If the store's windows don't end at every bar.
    UsageError
        If a setting makes no sense, there is nothing to trade, or a policy's exposure makes none.
    """
    team = list(policies) if isinstance(policies, Sequence) else [policies]
    if not team:
        raise UsageError("there is no policy to evaluate; give at least one")
    contexts = _contexts(store, context, max_age)
    tape = read_tape(store, subset, contexts)
    others = dict(against or {})
    if taken := [name for name in others if name in _TAKEN or name.startswith("seed ")]:
        raise UsageError(f"against= can't call a policy {taken[0]!r}: a row is called so already")
    exposure = decide([*team, *others.values()], store, tape, contexts)
    own, beside = exposure[: len(team)], dict(zip(others, exposure[len(team) :], strict=True))
    return _summarise(store, [tape], own, cost, draws, seed, level, beside)


def evaluate_walk_forward(
    train: Callable[[Split, int], Any],
    store: MatrixStore,
    pairs: Sequence[tuple[Split, Split]],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    cost: float = BASIS_POINT,
    draws: int = 999,
    seed: int = 0,
    level: float = 0.05,
    context: Mapping[str, MatrixStore] | None = None,
    max_age: Duration | None = None,
) -> Evaluation:
    """Train on each pair's first split and trade its second; the test periods make one curve.

    Parameters
    ----------
    train : callable
        ``train(split, seed)`` gives a policy, as of `evaluate`. Each must start anew.
    store : MatrixStore
        To trade, at stride 1.
    pairs : sequence of (Split, Split)
        As of `walk_forward`.
    seeds : sequence of int
        Each is trained on every pair, and makes a curve of its own.
    cost : float
        As of `evaluate`.
    draws : int
        As of `evaluate`.
    seed : int
        As of `evaluate`.
    level : float
        As of `evaluate`.
    context : mapping of str to MatrixStore, optional
        As of `evaluate`.
    max_age : str or timedelta, optional
        As of `evaluate`.

    Returns
    -------
    Evaluation

    Raises
    ------
    StoreMismatchError, UsageError
        As of `evaluate`; also if a pair's training reads bars that its test reads, or test
        periods overlap.
    """
    if not pairs or not seeds:
        raise UsageError("there is nothing to train: give at least one pair and one seed")
    _check_pairs(pairs)
    contexts = _contexts(store, context, max_age)
    tapes = [read_tape(store, test, contexts) for _, test in pairs]
    exposures = []
    for (split, _), tape in zip(pairs, tapes, strict=True):
        exposures.append(decide([train(split, one) for one in seeds], store, tape, contexts))
    exposure = np.concatenate(exposures, axis=1)
    return _summarise(store, tapes, exposure, cost, draws, seed, level)


def _contexts(
    store: MatrixStore, context: Mapping[str, MatrixStore] | None, max_age: Duration | None
) -> Contexts:
    from grandbatch.loader.context.contexts import Contexts

    return Contexts(store, context, max_age)


def _summarise(
    store: MatrixStore,
    tapes: Sequence[Tape],
    exposure: Float64,
    cost: float,
    draws: int,
    seed: int,
    level: float,
    beside: Mapping[str, Float64] | None = None,
) -> Evaluation:
    n_symbols = len(np.unique(Tape.joined(tapes).symbol))
    market = Market(tapes, n_symbols, cost)
    curve_bars = thinned(len(market.times))
    verdict, random = judge(market, exposure, draws, seed, level)
    one = np.ones(exposure.shape[1])
    return Evaluation(
        seeds=tuple(Track.of(market, each) for each in exposure),
        buy_and_hold=Track.of(market, one),
        flat=Track.of(market, 0 * one),
        others={name: Track.of(market, each) for name, each in (beside or {}).items()},
        random=random,
        verdict=verdict,
        symbols=_by_symbol(store, market, exposure),
        curve_bars=curve_bars,
        chance=curves_of_chance(market, exposure, draws, seed, curve_bars),
        windows=market.tape.window,
        times=market.times,
        bars_per_year=market.bars_per_year,
        cost=cost,
    )


def _by_symbol(store: MatrixStore, market: Market, exposure: Float64) -> tuple[SymbolResult, ...]:
    held = market.by_symbol(np.ones((1, exposure.shape[1])))
    found = [
        SymbolResult(store.symbols[number], windows, mean, total, hold[3])
        for (number, windows, mean, total), hold in zip(
            market.by_symbol(exposure), held, strict=True
        )
    ]
    return tuple(sorted(found, key=lambda one: (-one.total_return, one.symbol)))


def _check_pairs(pairs: Sequence[tuple[Split, Split]]) -> None:
    tested_until = None
    for number, (train, test) in enumerate(pairs):
        if train.reads_until > test.reads_from:
            raise UsageError(
                f"pair {number} is not purged: its training reads bars until "
                f"{shown(train.reads_until)}, its test from {shown(test.reads_from)} on; "
                "make the pairs with walk_forward or split_store"
            )
        if tested_until is not None and test.start < tested_until:
            raise UsageError(
                f"the test of pair {number} starts at {shown(test.start)}, before that of the pair "
                f"before it stops, at {shown(tested_until)}; give them in order, without overlap"
            )
        tested_until = test.stop
