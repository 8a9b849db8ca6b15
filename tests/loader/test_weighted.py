"""Windows drawn by weights: as often as asked, chunk by chunk, resumable, refused where wrong."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.loader import batches
from grandbatch.order import DrawnOrder, OrderSettings, Selection, WeightedSelection, deal

N_SYMBOLS = 3

pytestmark = pytest.mark.filterwarnings(
    "ignore:'set_vital' is deprecated:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Three symbols of very different length, in chunks of 16 windows, in both layouts."""
    folder = tmp_path_factory.mktemp("weighted")
    whole = folder / "whole.csv"
    gb.create_large_dataset_simulation(whole, num_rows=1_200, symbols=N_SYMBOLS, seed=3)
    head, *lines = whole.read_text().splitlines()
    column = head.split(",").index("symbol")
    counts, kept = {}, []
    for line in lines:
        name = line.split(",")[column]
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= {0: 400, 1: 250, 2: 120}[sorted(counts).index(name)]:
            kept.append(line)
    source = folder / "bars.csv"
    source.write_text("\n".join([head, *kept]) + "\n")
    return {
        layout: gb.build_store(
            source,
            folder / f"{layout}.zarr",
            overlap=47,
            layout=layout,
            chunk_windows=16,
            targets=(gb.forward_volatility(5),),
        )
        for layout in ("windows", "rows")
    }


@pytest.fixture
def store(stores):
    return stores["rows"]


@pytest.fixture
def small_slabs(monkeypatch):
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 50)


def make_loader(store, weights="symbol", batch_size=20, **options):
    return gb.SlidingWindowDataLoader(
        store, gb.BatchConfig(batch_size=batch_size), weights=weights, **options
    )


def indices(loader):
    return [batch.index.numpy() for batch in loader]


def count(loader, epochs):
    """How often each window of the store comes in some epochs, by plain counting."""
    found = np.zeros(len(loader.store), np.int64)
    for _ in range(epochs):
        for index in indices(loader):
            np.add.at(found, index, 1)
    return found


def assert_within_three_standard_errors(found, shares):
    """As independent draws would be; one in 370 may lie beyond by chance, so some more room."""
    n = found.sum()
    error = np.sqrt(n * shares * (1 - shares))
    beyond = np.abs(found - n * shares) > 3 * error + 1e-9
    assert beyond.mean() <= 0.01
    assert not found[shares == 0].any()


@pytest.mark.parametrize("run_length", [1, 8])
def test_every_symbol_comes_equally_often(store, run_length):
    found = count(make_loader(store, run_length=run_length), epochs=6)
    by_symbol = np.bincount(store.symbol[:], weights=found)
    assert len(by_symbol) == N_SYMBOLS
    assert_within_three_standard_errors(by_symbol, np.full(N_SYMBOLS, 1 / N_SYMBOLS))
    assert by_symbol.sum() == 6 * len(store)


def test_a_mapping_says_how_often_each_symbol_comes(store):
    weights = dict(zip(store.symbols, (1, 0, 3.0), strict=True))
    found = count(make_loader(store, weights), epochs=6)
    by_symbol = np.bincount(store.symbol[:], weights=found)
    assert_within_three_standard_errors(by_symbol, np.array([0.25, 0, 0.75]))


@pytest.mark.parametrize("shuffle_chunks", [1, 4, None])
def test_each_window_comes_as_often_as_its_weight_says(store, shuffle_chunks):
    weights = np.random.default_rng(5).pareto(1.0, len(store))
    weights[::7] = 0
    found = count(make_loader(store, weights, shuffle_chunks=shuffle_chunks), epochs=30)
    assert_within_three_standard_errors(found, weights / weights.sum())


def test_all_windows_of_a_symbol_come_equally_often_within_it(store):
    found = count(make_loader(store), epochs=40)
    for code in range(N_SYMBOLS):
        own = found[store.symbol[:] == code]
        expected = own.sum() / len(own)
        # of independent draws the statistic has a mean of len(own) - 1
        statistic = ((own - expected) ** 2 / expected).sum()
        assert abs(statistic - len(own)) < 5 * np.sqrt(2 * len(own))


def test_windows_are_drawn_again_and_not_passed_round(store):
    found = count(make_loader(store, np.ones(len(store))), epochs=1)
    # with replacement, a share of 1/e of all windows stays out
    assert abs((found == 0).mean() - np.exp(-1)) < 0.06
    assert found.max() >= 3


def test_the_name_of_an_array_means_its_values(store):
    for name, values in (
        ("close_price", store.close_price[:]),
        ("forward_volatility_5", np.nan_to_num(store.targets[:][:, 0])),
    ):
        train = gb.split_store(store, {"train": 0.6, "test": 0.4})["train"]
        options = {"subset": train, "symbols": store.symbols[:2]}
        named, given_as = make_loader(store, name, **options), make_loader(store, values, **options)
        assert np.array_equal(*(np.concatenate(indices(one)) for one in (named, given_as)))
        assert named.settings == given_as.settings


def test_both_layouts_draw_the_same_windows_with_the_same_bits(stores):
    pairs = zip(make_loader(stores["windows"]), make_loader(stores["rows"]), strict=True)
    for one, two in pairs:
        assert one.index.tolist() == two.index.tolist()
        assert one.matrices.numpy().tobytes() == two.matrices.numpy().tobytes()


@pytest.mark.parametrize("cache_bytes", [0, 2**26])
def test_a_drawn_window_has_its_own_matrix_and_labels(store, cache_bytes):
    config = gb.BatchConfig(batch_size=50, cache_bytes=cache_bytes)
    matrices = store.matrices[:]
    loader = gb.SlidingWindowDataLoader(store, config, weights="symbol", shuffle_chunks=3)
    for batch in loader:
        assert batch.matrices.numpy().tobytes() == matrices[batch.index.numpy()].tobytes()
        assert batch.end_time.tolist() == store.end_time[:][batch.index.numpy()].tolist()


@pytest.mark.parametrize("run_length", [1, 8])
def test_a_state_goes_on_behind_any_batch(store, run_length, small_slabs):
    options = {"run_length": run_length, "shuffle_chunks": 2}
    whole = make_loader(store, **options)
    expected = indices(whole) + indices(whole)
    for n in range(0, len(expected), 5):
        loader, seen = make_loader(store, **options), []
        while len(seen) < n:
            for batch in loader:
                seen.append(batch.index.numpy())
                if len(seen) == n:
                    break
        again = make_loader(store, **options)
        again.load_state_dict(loader.state_dict())
        rest = indices(again)
        if n < len(expected) // 2:
            rest += indices(again)
        assert np.concatenate([*seen, *rest]).tolist() == np.concatenate(expected).tolist()


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_another_number_of_ranks_hands_over_what_was_left(store, after):
    def of_ranks(n, state=None, until=None):
        seen, loaders = [], []
        for rank in range(n):
            loader = make_loader(store, rank=rank, world_size=n, shuffle_chunks=2)
            if state is not None:
                loader.load_state_dict(state)
            for number, batch in enumerate(loader, start=1):
                seen += batch.index[batch.weight > 0].tolist()
                if number == until:
                    break
            loaders.append(loader)
        return seen, loaders[0].state_dict()

    whole, _ = of_ranks(1)
    first, state = of_ranks(2, until=3)
    rest, _ = of_ranks(after, state)
    assert sorted(first + rest) == sorted(whole)


def test_ranks_share_the_draws_of_one_epoch(store):
    whole = np.concatenate(indices(make_loader(store)))
    parts, sizes = [], []
    for rank in range(4):
        for batch in make_loader(store, rank=rank, world_size=4):
            parts += batch.index[batch.weight > 0].tolist()
        sizes.append(len(make_loader(store, rank=rank, world_size=4)))
    assert sorted(parts) == sorted(whole.tolist())
    assert len(set(sizes)) == 1


def test_worker_processes_hand_over_the_same_draws(store):
    expected = [index.tolist() for index in indices(make_loader(store))]
    workers = DataLoader(make_loader(store), batch_size=None, num_workers=2)
    assert [batch.index.tolist() for batch in workers] == expected


def test_a_stateful_data_loader_goes_on_with_the_draws(store):
    StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    expected = [index.tolist() for index in indices(make_loader(store))]
    first = StatefulDataLoader(make_loader(store), batch_size=None, num_workers=2)
    seen = []
    for batch in first:
        seen.append(batch.index.tolist())
        if len(seen) == 5:
            state = first.state_dict()
            break
    second = StatefulDataLoader(make_loader(store), batch_size=None, num_workers=2)
    second.load_state_dict(state)
    assert seen + [batch.index.tolist() for batch in second] == expected


def test_a_pickled_loader_draws_the_same(store):
    loader = make_loader(store)
    copy = pickle.loads(pickle.dumps(loader))
    assert np.array_equal(np.concatenate(indices(loader)), np.concatenate(indices(copy)))


def test_a_state_of_other_weights_is_refused(store):
    state = make_loader(store).state_dict()
    others = (dict(zip(store.symbols, (1, 2, 3), strict=True)), None, np.ones(len(store)))
    for other in others:
        with pytest.raises(CheckpointError, match=r"weights is .* here and '[0-9a-f]{32}' there"):
            make_loader(store, other, shuffle_chunks=1_000).load_state_dict(
                {**state, "order": {**state["order"], "shuffle_chunks": 1_000}}
            )
    same = dict.fromkeys(store.symbols, 7)
    make_loader(store, same).load_state_dict(state)


def test_weights_hold_for_the_windows_of_a_split_and_of_some_symbols(store):
    train = gb.split_store(store, {"train": 0.6, "test": 0.4})["train"]
    plain = np.concatenate(indices(make_loader(store, None, subset=train)))
    loader = make_loader(store, subset=train)
    found = count(loader, epochs=8)
    assert loader.n_windows == len(plain)
    assert not np.setdiff1d(np.flatnonzero(found), plain).size
    part = np.bincount(store.symbol[:], weights=found)
    taking = np.unique(store.symbol[:][plain])
    assert_within_three_standard_errors(part[taking], np.full(len(taking), 1 / len(taking)))

    two = store.symbols[:2]
    found = count(make_loader(store, symbols=two), epochs=8)
    part = np.bincount(store.symbol[:], weights=found, minlength=N_SYMBOLS)
    assert part[2] == 0
    assert_within_three_standard_errors(part[:2], np.full(2, 0.5))


def test_drawn_windows_bring_their_contexts_along(store):
    options = {"context": {"self": store}, "shuffle_chunks": 3}
    matrices, loader = store.matrices[:], make_loader(store, **options)
    n = 0
    for batch in loader:
        assert batch.context["self"].index.tolist() == batch.index.tolist()
        assert batch.context["self"].matrices.numpy().tobytes() == matrices[batch.index].tobytes()
        n += len(batch)
    assert n == loader.n_windows == len(store)


def test_chunks_without_weight_are_not_read(store):
    weights = np.zeros(len(store))
    weights[40:50] = 1
    loader = make_loader(store, weights)
    assert set(np.concatenate(indices(loader)).tolist()) <= set(range(40, 50))
    assert loader.selection.chunks.tolist() == [2, 3]


def test_memory_of_weights_is_counted(store):
    plain, weighed = make_loader(store, None), make_loader(store, np.arange(len(store)) + 1.0)
    assert weighed.buffer_bytes == plain.buffer_bytes + 24 * len(store)
    assert make_loader(store).buffer_bytes == plain.buffer_bytes + 24 * N_SYMBOLS
    assert weighed.spare_bytes == plain.spare_bytes


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda s: np.where(np.arange(len(s)) == 5, -1.0, 1), "got -1.0 for window 5"),
        (lambda s: np.where(np.arange(len(s)) == 9, np.nan, 1), "got nan for window 9"),
        (lambda s: np.full(len(s), np.inf), "got inf for window 0"),
        (lambda s: np.zeros(len(s)), "0 for every window that takes part"),
        (lambda s: np.ones(len(s) - 1), "one number for each window"),
        (lambda s: np.ones((len(s), 2)), "wants"),
        (lambda s: np.array(["a"] * len(s)), "wants"),
        (lambda s: 3, "wants"),
        (lambda s: "volume", "no per-window array"),
        (lambda s: "next_return", "from 0 on"),
        (lambda s: {**dict.fromkeys(s.symbols, 1), "XYZ": 1}, "XYZ"),
        (lambda s: {s.symbols[0]: 1}, "give every symbol one"),
        (lambda s: dict.fromkeys(s.symbols, 0), "0 for every window"),
        (lambda s: dict.fromkeys(s.symbols, -1), "got -1"),
        (lambda s: dict.fromkeys(s.symbols, float("nan")), "got nan"),
        (lambda s: dict.fromkeys(s.symbols, "2"), "got '2'"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(store, weights, words):
    with pytest.raises(UsageError) as caught:
        make_loader(store, weights(store))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shuffle": False}, "shuffle=False"),
        ({"run_length": 4, "weights": "close_price"}, "run_length=1"),
    ],
)
def test_weights_that_do_not_go_with_the_order_are_refused(store, options, words):
    with pytest.raises(UsageError, match=words):
        make_loader(store, **options)


def test_runs_of_equal_weight_stay_in_their_segment():
    segments = Selection(np.array([0, 10, 20]), np.array([10, 20, 31]), 16)
    weighted = WeightedSelection.of(segments, np.array([0]), np.array([2.0]))
    order = DrawnOrder(OrderSettings(run_length=4), weighted, 0)
    drawn = 0
    for block in range(order.n_blocks):
        chunk = order.block_chunks(block)
        which, begin, length = order._runs(chunk, order._block(block)[1], block)
        first = chunk[which] * 16 + begin
        assert (first // 10 == np.minimum((first + length - 1) // 10, 2)).all()
        drawn += int(length.sum())
    assert drawn == len(segments)


@st.composite
def drawn_orders(draw):
    """Any weights over any stretches of a store, in any blocks."""
    n = draw(st.integers(1, 120))
    taking = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    values = st.sampled_from([0.0, 1e-300, 1e-3, 1.0, 2.0, 1e300])
    weights = np.array(draw(st.lists(values, min_size=n, max_size=n)))
    taking = np.array(taking)
    weights[np.flatnonzero(taking)[0]] = 1e300
    padded = np.diff(np.concatenate([[0], taking.astype(int), [0]]))
    chosen = Selection(np.flatnonzero(padded == 1), np.flatnonzero(padded == -1), 8)
    weighted = WeightedSelection.of(chosen, np.arange(n), weights)
    settings = OrderSettings(
        seed=draw(st.integers(0, 9)),
        shuffle_chunks=draw(st.integers(1, 6)),
        run_length=draw(st.sampled_from([1, 1, 3])),
    )
    return DrawnOrder(settings, weighted, draw(st.integers(0, 3))), weights * taking, taking.sum()


@given(drawn_orders(), st.integers(1, 4))
def test_an_epoch_of_draws_is_whole_and_takes_nothing_without_weight(made, world_size):
    order, weights, n_taking = made
    every = []
    for block in range(order.n_blocks):
        entries = order.block_entries(block)
        assert len(entries) == order.block_sizes[block]
        assert len(entries) <= 8 * order.settings.shuffle_chunks
        slot, window = np.divmod(entries.astype(np.int64), 8)
        every += (order.block_chunks(block)[slot] * 8 + window).tolist()
    assert len(every) == n_taking
    assert (weights[every] > 0).all()
    dealt = deal(order, world_size)
    shares = [share for rank in range(world_size) for share in dealt.shares(rank)]
    assert sum(share.size for share in shares) == n_taking


@given(drawn_orders())
def test_shares_of_chunks_are_those_of_their_weights_rounded(made):
    order, weights, n_taking = made
    exact = np.add.reduceat(weights / weights.max(), np.arange(0, len(weights), 8))
    exact = exact / exact.sum() * n_taking
    place, draws = order._visits
    got = np.zeros(len(exact))
    np.add.at(got, order.weighted.chunks[place], draws)
    assert (np.abs(got - exact) < 1 + 1e-9).all()
    # no more visits than chunks without weights, and one more for each chunk
    assert len(place) <= n_taking / 8 + len(order.weighted.chunks)
