"""The order of an epoch: exactly once, the same for ever, and the same after any resume."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.errors import CheckpointError, UsageError
from grandbatch.order import (
    EpochOrder,
    OrderSettings,
    Selection,
    deal,
    default_shuffle_chunks,
    epoch_start,
    permutation,
    shuffle_vif,
    stream_key,
)
from grandbatch.position import Position

MASK = 2**64 - 1


def plain_permutation(n, key):
    """Numbers sorted by splitmix64's draws, in Python's own integers."""
    bits = max(n - 1, 0).bit_length()
    keyed, state = [], key
    for number in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        keyed.append((z >> bits, number))
    return [number for _, number in sorted(keyed)]


def make_order(n=100, chunk_windows=8, epoch=0, selection=None, **options):
    chosen = selection or Selection.everything(n, chunk_windows)
    return EpochOrder(OrderSettings(**{"shuffle_chunks": 3, **options}), chosen, epoch)


def every_window(order):
    parts = [order.block_windows(block) for block in range(order.n_blocks)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def rank_windows(dealt, rank):
    blocks = dealt.order.block_windows
    parts = [blocks(s.block)[s.offset : s.stop] for s in dealt.shares(rank)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def brute_force_deal(order, world_size):
    """Hand out window by window: whoever has none left takes the next block whole."""
    blocks = [list(order.block_windows(block)) for block in range(order.n_blocks)]
    total = sum(len(block) for block in blocks)
    targets = [total // world_size + (rank < total % world_size) for rank in range(world_size)]
    hands = [[] for _ in range(world_size)]
    while blocks:
        rank = min(range(world_size), key=lambda r: (len(hands[r]), r))
        if len(hands[rank]) + len(blocks[0]) > targets[rank]:
            break
        hands[rank] += blocks.pop(0)
    tail = [window for block in blocks for window in block]
    for rank in range(world_size):
        need = targets[rank] - len(hands[rank])
        hands[rank] += tail[:need]
        del tail[:need]
    return hands


@st.composite
def selections(draw):
    n = draw(st.integers(1, 120))
    kept = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    kept[draw(st.integers(0, n - 1))] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept, [0]])))
    chosen = Selection(edges[::2].astype(np.int64), edges[1::2].astype(np.int64), 7)
    return chosen, np.flatnonzero(kept)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1000, 40_000])
@pytest.mark.parametrize("key", [0, 1, 2**63, MASK])
def test_a_permutation_is_what_plain_integers_give(n, key):
    numbers = permutation(n, key)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == plain_permutation(n, key)


def test_permutations_are_the_same_for_ever():
    key = stream_key(7, 0, 1, 0)
    assert key == 8655894791565660796
    assert permutation(10, key).tolist() == [2, 5, 3, 1, 0, 7, 6, 9, 8, 4]


def test_the_generator_is_splitmix64():
    # the first outputs for seed 1234567, as published with the generator
    states = [(1234567 + step * 0x9E3779B97F4A7C15) & MASK for step in range(3)]
    assert [stream_key(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_all_permutations_are_equally_likely():
    counts = {}
    for key in range(24_000):
        order = tuple(permutation(4, stream_key(key, 1)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    chi2 = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi2 < 55  # 23 degrees of freedom: 0.02 % of fair shuffles exceed it


@settings(max_examples=60, deadline=None)
@given(selections(), st.integers(1, 6), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_an_epoch_holds_each_selected_window_once(chosen, chunks, run_length, shuffle, epoch):
    selection, kept = chosen
    order = make_order(
        selection=selection,
        shuffle_chunks=chunks,
        run_length=run_length,
        shuffle=shuffle,
        epoch=epoch,
    )
    windows = every_window(order)
    assert np.array_equal(np.sort(windows), kept)
    assert order.block_sizes.sum() == len(selection) == len(kept)
    if not shuffle:
        assert np.array_equal(windows, kept)


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    first = every_window(make_order())
    assert np.array_equal(first, every_window(make_order()))
    assert not np.array_equal(first, every_window(make_order(epoch=1)))
    assert not np.array_equal(first, every_window(make_order(seed=1)))


def test_windows_of_a_block_come_from_its_chunks_only():
    order = make_order()
    for block in range(order.n_blocks):
        assert set(order.block_windows(block) // 8) == set(order.block_chunks(block))


def test_runs_stay_together_within_chunks_and_stretches():
    selection = Selection(np.array([0, 21]), np.array([21, 100]), 8)
    windows = every_window(make_order(selection=selection, run_length=4))
    broken = np.flatnonzero(np.diff(windows) != 1) + 1
    runs = np.split(windows, broken)
    assert max(len(run) for run in runs) >= 4
    starts = {int(w) for w in (*range(0, 21, 8), *range(4, 21, 8))}
    starts |= {21, 24, *range(28, 100, 4)}
    assert {int(run[0]) for run in runs} <= starts


def test_entries_follow_the_slots_that_chunks_lie_in():
    order = make_order(n=64)
    slots = np.array([5, 0, 9], np.int32)
    entries = order.block_entries(0, slots)
    chunk_of_slot = dict(zip(slots.tolist(), order.block_chunks(0).tolist(), strict=True))
    windows = [chunk_of_slot[int(e) // 8] * 8 + int(e) % 8 for e in entries]
    assert windows == order.block_windows(0).tolist()


@settings(max_examples=60, deadline=None)
@given(selections(), st.integers(1, 6), st.integers(1, 9), st.sampled_from(["pad", "drop"]))
def test_ranks_get_disjoint_windows_and_equally_many(chosen, chunks, world_size, remainder):
    selection, kept = chosen
    order = make_order(selection=selection, shuffle_chunks=chunks, remainder=remainder)
    dealt = deal(order, world_size)
    hands = [rank_windows(dealt, rank).tolist() for rank in range(world_size)]
    together = [window for hand in hands for window in hand]
    assert len(together) == len(set(together))
    share = len(kept) // world_size
    if remainder == "pad":
        assert sorted(together) == kept.tolist()
        assert hands == brute_force_deal(order, world_size)
        assert {len(hand) for hand in hands} <= {share, share + 1}
    else:
        assert {len(hand) for hand in hands} == {share}
        assert set(together) <= set(kept.tolist())


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [3, 100, 101])
def test_a_resume_at_any_window_goes_on_as_if_uninterrupted(world_size, remainder, n):
    order = make_order(n=n, remainder=remainder)
    dealt = deal(order, world_size)
    hands = [rank_windows(dealt, rank) for rank in range(world_size)]
    for consumed in range(dealt.windows_per_rank):
        position = dealt.position(consumed, consumed, 0)
        position = Position.from_json(json.loads(json.dumps(position.to_json())))
        again = deal(order, world_size, position)
        for rank in range(world_size):
            assert np.array_equal(rank_windows(again, rank), hands[rank][consumed:])
        assert again.windows_per_rank == dealt.windows_per_rank - consumed
        for later in range(again.windows_per_rank + 1):
            step = consumed + later
            assert again.position(later, step, 0) == dealt.position(step, step, 0)


@pytest.mark.parametrize("other", [1, 2, 3, 8])
@pytest.mark.parametrize("epoch", [0, 1])
def test_another_world_size_hands_over_exactly_what_was_left(other, epoch):
    order = make_order(n=203, epoch=epoch)
    dealt = deal(order, 4)
    hands = [rank_windows(dealt, rank) for rank in range(4)]
    for consumed in range(dealt.windows_per_rank):
        before = [window for hand in hands for window in hand[:consumed]]
        middle = deal(order, other, dealt.position(consumed, consumed, 0))
        half = middle.windows_per_rank // 2
        parts = [rank_windows(middle, rank) for rank in range(other)]
        assert {len(part) for part in parts} <= {middle.windows_per_rank + d for d in (-1, 0)}
        between = [window for part in parts for window in part[:half]]
        last = deal(order, 3, middle.position(half, half, 0))
        after = [window for rank in range(3) for window in rank_windows(last, rank)]
        assert sorted(before + between + after) == list(range(203))


def test_the_open_remainders_are_dealt_before_unopened_blocks():
    order = make_order(n=240)
    dealt = deal(order, 4)
    position = dealt.position(10, 10, 0)
    open_windows = [
        window
        for rank in range(4)
        for window in rank_windows(dealt, rank)[10:]
        if window in order.block_windows(dealt.shares(rank)[0].block)
    ]
    first = rank_windows(deal(order, 1, position), 0)[: len(open_windows)]
    assert sorted(first) == sorted(open_windows)


def test_a_position_names_the_open_block_and_what_was_handed_over():
    order = make_order()
    dealt = deal(order, 1)
    assert dealt.position(0, 0, 0) == epoch_start(order, 1)
    position = dealt.position(30, 3, 0)
    assert (position.chunk_index, position.offset) == (order.first_chunk(1), 6)
    assert (position.epoch, position.step, position.next_block) == (0, 3, 2)


def test_behind_the_last_window_the_next_epoch_begins():
    dealt = deal(make_order(), 2)
    position = dealt.position(dealt.windows_per_rank, 9, 0)
    assert position == epoch_start(make_order(epoch=1), 2)
    assert (position.epoch, position.step, position.offset, position.next_block) == (1, 0, 0, 0)
    assert position.open_spans == ((), ())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"next_block": 99}, "no position of this order"),
        ({"open_spans": [[[1000, 0, 4]]]}, "no position of this order"),
        ({"open_spans": [[[-1, 0, 4]]]}, "not a position"),
        ({"step": -1}, "not a position"),
    ],
)
def test_a_foreign_position_is_refused(change, told):
    order = make_order()
    good = deal(order, 1).position(30, 3, 0).to_json()
    with pytest.raises(CheckpointError, match=told):
        deal(order, 1, Position.from_json({**good, **change}))


def test_overlapping_or_unopened_spans_are_refused():
    order = make_order()
    good = deal(order, 1).position(30, 3, 0).to_json()
    chunk = order.first_chunk(1)
    for spans in ([[[chunk, 6, 24], [chunk, 20, 24]]], [[[order.first_chunk(3), 0, 4]]]):
        with pytest.raises(CheckpointError):
            deal(order, 1, Position.from_json({**good, "open_spans": spans}))


def test_settings_that_differ_are_named_with_both_values():
    saved = json.loads(json.dumps(OrderSettings(seed=3, symbols=("A", "B")).to_json()))
    OrderSettings(seed=3, symbols=("A", "B")).check_same(saved)
    with pytest.raises(CheckpointError, match=r"seed is 4 here and 3 there.*run_length is 2"):
        OrderSettings(seed=4, run_length=2, symbols=("A", "B")).check_same(saved)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"shuffle_chunks": 0}, "shuffle_chunks"),
        ({"run_length": 0}, "run_length"),
        ({"remainder": "keep"}, "remainder"),
        ({"start": 5, "stop": 5}, "start must be before stop"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        OrderSettings(**options)


@pytest.mark.parametrize(
    ("chunks", "run_length"), [(1, 1), (4, 1), (16, 1), (64, 1), (4, 8), (64, 8)]
)
def test_the_stated_shuffle_quality_is_the_measured_one(chunks, run_length):
    n, chunk_windows, batch = 64 * 64, 64, 64
    means = []
    for epoch in range(60):
        order = make_order(
            n=n,
            chunk_windows=chunk_windows,
            epoch=epoch,
            shuffle_chunks=chunks,
            run_length=run_length,
        )
        means.append(every_window(order).reshape(-1, batch).mean(axis=1))
    # batches of an epoch share its windows, so the deviations are taken from the known mean
    deviations = np.concatenate(means) - (n - 1) / 2
    perfect = (n**2 - 1) / 12 / batch * (n - batch) / (n - 1)
    measured = float((deviations**2).mean()) / perfect
    stated = shuffle_vif(batch, chunks, n // chunk_windows, run_length=run_length)
    assert math.isclose(measured, stated, rel_tol=0.12)


def test_store_order_has_the_worst_quality():
    assert shuffle_vif(64, 100, 100, shuffle=False) == 64
    assert shuffle_vif(64, 100, 100) == 1


@pytest.mark.parametrize("n_chunks", [1, 2, 100, 500, 977, 1000])
def test_default_blocks_give_a_quality_of_two_within_64_megabytes(n_chunks):
    chunk_bytes = (1023 + 48) * 13 * 4
    chunks = default_shuffle_chunks(n_chunks, chunk_bytes, shuffle=True)
    assert shuffle_vif(1024, chunks, n_chunks) <= 2
    assert 2 * chunks * chunk_bytes <= 64_000_000


def test_default_blocks_never_exceed_their_memory():
    for chunk_bytes in (1000, 60_000, 3_000_000, 10**9):
        chunks = default_shuffle_chunks(10**6, chunk_bytes, shuffle=True)
        assert chunks == 1 or 2 * chunks * chunk_bytes <= 64_000_000
