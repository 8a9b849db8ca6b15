"""Batches of a device are those of the CPU, to the bit and to the state, however late it works."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import contextmanager
from itertools import chain, islice

import pytest
import torch
from timeframes import gappy_bars, write_bars
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import DamagedStoreError, UsageError
from grandbatch.loader import batches, device
from grandbatch.training.guard import Allowance, planned_bytes

STORES = [("rows", 11), ("windows", 11), ("rows", 3), ("windows", 3)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Windows of 12 rows of three symbols with gaps, at strides 1 and 9, and coarser ones."""
    folder = tmp_path_factory.mktemp("device")
    write_bars(folder / "bars.csv", gappy_bars(["CCC", "AAA"], 450))

    def build(name, layout, overlap, **options):
        given = {"sequence_length": 12, "chunk_windows": 16, "durable": False} | options
        return gb.build_store(
            folder / "bars.csv", folder / name, layout=layout, overlap=overlap, **given
        )

    made = {one: build(f"{one[0]}-{one[1]}.zarr", *one) for one in STORES}
    made["slow"] = build("slow.zarr", "rows", 7, sequence_length=10, resample="10min")
    made["targets"] = build(
        "targets.zarr", "rows", 11, targets="forward_return:3,forward_volatility:3"
    )
    return made


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    """Slabs of few windows, and memory to send from that is soon used again."""
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 50)
    monkeypatch.setattr(device, "_STAGES", 2)
    monkeypatch.setattr(device, "_STAGE_BYTES", 1_000)


class LateLane:
    """Does what it is given only when somebody waits for it: as late as any device may."""

    slab_factor = 3

    def __init__(self, _device):
        self.todo, self.n_given, self.n_done, self.met = [], 0, 0, []

    def host_memory(self, n_bytes):
        return torch.empty(n_bytes, dtype=torch.uint8)

    memory = host_memory

    def run(self, work):
        self.todo.append(work)
        self.n_given += 1

    def mark(self):
        return LateMark(self, self.n_given)

    def meet(self, mark, tensors):
        mark.synchronize()
        self.met.append([tensor.untyped_storage().data_ptr() for tensor in tensors])


class LateMark:
    def __init__(self, lane, place):
        self.lane, self.place = lane, place

    def synchronize(self):
        while self.lane.n_done < self.place:
            self.lane.todo.pop(0)()
            self.lane.n_done += 1


@pytest.fixture
def late(monkeypatch):
    """Return the lanes that were made instead of those of a device."""
    lanes = []

    def made(chosen):
        lanes.append(LateLane(chosen))
        return lanes[-1]

    monkeypatch.setattr(device, "lane_of", made)
    return lanes


def make_loader(store, cache_bytes=0, batch_size=16, **options):
    config = gb.BatchConfig(
        batch_size=batch_size,
        sequence_length=store.sequence_length,
        overlap=store.overlap,
        cache_bytes=cache_bytes,
        num_workers=2,
    )
    return gb.SlidingWindowDataLoader(store, config, **{"seed": 3, "shuffle_chunks": 3} | options)


def bits(batch):
    def raw(tensor):
        return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor

    return {
        name: (tensor.dtype, tuple(tensor.shape), raw(tensor).numpy().tobytes())
        for name, tensor in batch.tensors().items()
    }


def course(loader, epochs=2, prefetch=0):
    """Bits of all batches of some epochs, and the state behind each."""
    return [
        (bits(batch), loader.state_dict())
        for _ in range(epochs)
        for batch in gb.DataStreamer(loader, prefetch)
    ]


def both(store, **options):
    return make_loader(store, **options), make_loader(store, device="cpu", **options)


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("kind", STORES, ids=str)
def test_bits_order_and_states_are_those_without_a_device(stores, kind, prefetch, cache_bytes):
    plain, on_device = both(stores[kind], cache_bytes=cache_bytes)
    assert course(on_device, prefetch=prefetch) == course(plain)


OPTIONS = [
    {"shuffle": False},
    {"run_length": 5},
    {"symbols": ["AAA"], "remainder": "drop", "rank": 1, "world_size": 3},
    {"weights": "symbol"},
    {"dtype": torch.bfloat16},
    {"max_age": "2h"},
    {"batch_size": 1_000},
]


@pytest.mark.parametrize("options", OPTIONS, ids="+".join)
@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_a_device_that_works_late_changes_nothing(stores, late, options, cache_bytes):
    slow = {"context": {"slow": stores["slow"]}, "cache_bytes": cache_bytes}
    for kind in STORES[:2]:
        plain, on_device = both(stores[kind], **slow, **options)
        assert course(on_device) == course(plain)
    assert sum(lane.n_done for lane in late) > 100


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_targets_come_along_prepared_ahead_by_a_late_device(stores, late, cache_bytes):
    plain, on_device = both(stores["targets"], cache_bytes=cache_bytes)
    assert "targets" in next(iter(make_loader(stores["targets"], device="cpu"))).tensors()
    assert course(on_device, prefetch=3) == course(plain)


def test_a_state_goes_on_with_a_device_and_without_it_at_any_batch(stores):
    store = stores["rows", 11]
    whole = course(make_loader(store, batch_size=50), epochs=1)
    for done in range(0, len(whole) - 1, 3):
        state = json.loads(json.dumps(whole[done][1]))
        plain, on_device = both(store, batch_size=50)
        on_device.load_state_dict(state)
        first = next(iter(on_device))
        assert bits(first) == whole[done + 1][0]
        plain.load_state_dict(on_device.state_dict())
        assert course(plain, epochs=1) == whole[done + 2 :]


def test_ranks_of_devices_share_an_epoch_and_others_go_on_with_it(stores):
    store = stores["windows", 11]
    seen, states = [], []
    for rank in range(2):
        both_of_rank = both(store, rank=rank, world_size=2)
        for loader in both_of_rank:
            found = [batch.index.tolist() for batch in islice(loader, 3)]
        seen += chain.from_iterable(found)
        states.append([loader.state_dict() for loader in both_of_rank])
        assert states[rank][0] == states[rank][1]
    for rank in range(3):
        loader = make_loader(store, device="cpu", rank=rank, world_size=3)
        loader.load_state_dict(states[0][1])
        for batch in loader:
            seen += batch.index[batch.weight == 1].tolist()
    assert sorted(seen) == list(range(len(store)))


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_batches_that_are_kept_are_never_overwritten(stores, late, cache_bytes):
    plain, on_device = both(stores["rows", 11], cache_bytes=cache_bytes)
    kept = [batch for _ in range(2) for batch in gb.DataStreamer(on_device, 2)]
    assert [bits(batch) for batch in kept] == [found for found, _ in course(plain)]


def test_a_smaller_batch_size_takes_effect_at_once_and_changes_no_order(stores, late):
    plain, on_device = both(stores["rows", 11], batch_size=20)
    found = []
    for number, batch in enumerate(on_device):
        assert len(batch) <= 20 - min(max(0, number - 1), 15)
        found += batch.index.tolist()
        on_device.batch_size = 20 - min(number, 15)
    assert found == [number for batch in plain for number in batch.index.tolist()]


def test_whoever_is_handed_a_batch_meets_all_of_its_memory(stores, late):
    context = {"slow": stores["slow"]}
    loader = make_loader(stores["rows", 11], device="cpu", context=context)
    n_batches = 0
    for batch in gb.DataStreamer(loader, 2):
        mine = {tensor.untyped_storage().data_ptr() for tensor in batch.tensors().values()}
        assert mine <= set(late[0].met[-1])
        n_batches += 1
    assert len(late[0].met) == n_batches
    # and so does who goes through an epoch beside
    assert sum(len(batch) for batch in loader.whole_epoch()) == loader.n_windows
    assert len(late[0].met) == 2 * n_batches


def test_statistics_are_those_of_the_cpu(stores, late):
    plain, on_device = (
        gb.feature_statistics(loader, 1) for loader in both(stores["rows", 11], batch_size=64)
    )
    assert torch.equal(plain.mean, on_device.mean)


@pytest.fixture
def sent(monkeypatch):
    """Return the bytes of each sending."""
    found, send = [], device.Bus.send

    def counted(self, host, there):
        found.append(len(host))
        send(self, host, there)

    monkeypatch.setattr(device.Bus, "send", counted)
    return found


@pytest.mark.parametrize("layout", ["rows", "windows"])
def test_each_row_travels_once_and_is_kept_where_chunks_are(stores, sent, layout):
    store = stores[layout, 11]
    row_bytes = store.n_features * 4
    kept = make_loader(store, cache_bytes=2**24, device="cpu", batch_size=1_000)
    sum(len(batch) for batch in kept)
    labels = sum(size for size in sent if size % row_bytes)
    rows = sum(sent) - labels
    # a chunk of 16 windows has 27 rows, and some more where segments end
    assert len(store) * row_bytes < rows < 4 * len(store) * row_bytes
    sent.clear()
    sum(len(batch) for batch in kept)
    assert sum(sent) == labels < 100 * len(store)
    sent.clear()
    sum(len(batch) for batch in make_loader(store, device="cpu", batch_size=1_000))
    assert sum(sent) >= rows
    assert sum(sent) - labels < 2 * rows


def test_a_damaged_chunk_is_an_error_at_the_batch_it_belongs_to(stores, late, tmp_path):
    path = tmp_path / "damaged.zarr"
    shutil.copytree(stores["rows", 11].path, path)
    file = max(
        (one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size
    )
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)

    def until_damage(loader):
        found = []
        with pytest.raises(DamagedStoreError) as caught:
            found.extend((bits(batch), loader.state_dict()) for batch in loader)
        return found, str(caught.value)

    plain, on_device = both(gb.MatrixStore.open(path), batch_size=1)
    found = until_damage(on_device)
    assert found == until_damage(plain)
    assert found[0]


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_what_was_made_in_inference_mode_is_used_again_outside_of_it(stores, cache_bytes):
    plain, on_device = both(stores["rows", 11], cache_bytes=cache_bytes)
    with torch.inference_mode():
        first = next(iter(on_device))
        assert not first.matrices.is_inference()
    assert course(on_device) == course(plain)


def test_a_cache_given_up_is_given_up_on_the_device_too(stores):
    plain, on_device = both(stores["rows", 11], cache_bytes=2**24)
    for loader in (plain, on_device):
        next(iter(loader))
    before, spare = on_device.buffer_bytes, on_device.spare_bytes
    assert spare > plain.spare_bytes > 0
    on_device.release_cache()
    assert on_device.buffer_bytes == before - spare
    assert course(on_device) == course(plain)


def test_the_plan_of_a_training_counts_what_a_device_takes_of_this_memory(stores):
    plain, on_device = both(stores["rows", 11], cache_bytes=2**24)
    elsewhere = make_loader(stores["rows", 11], cache_bytes=2**24, device="meta")
    settings = Allowance(batch_size=4096, prefetch_batches=2)
    by_plain, by_device, by_elsewhere = (
        planned_bytes(loader, settings) for loader in (plain, on_device, elsewhere)
    )
    assert by_elsewhere == plain.buffer_bytes + device.STAGED_BYTES
    rows = on_device.buffer_bytes - elsewhere.buffer_bytes
    assert rows >= len(stores["rows", 11]) * 13 * 4
    assert by_device == by_plain + rows + device.STAGED_BYTES


class Sums:
    """A trainer whose state depends on the bits and the order of all that it saw."""

    def __init__(self):
        self.seen = torch.zeros(2, dtype=torch.float64)

    def train_batch(self, batch):
        self.seen = 0.5 * self.seen + torch.stack(
            [batch.matrices.double().mean(), batch.close_price.mean()]
        )
        return {"avg_reward": float(self.seen[0])}

    def state_dict(self):
        return {"seen": self.seen.clone()}

    def load_state_dict(self, state):
        self.seen = state["seen"].clone()


def test_a_training_on_a_device_is_the_same_and_resumes_there(stores, tmp_path):
    store = stores["rows", 11]
    config = gb.BatchConfig(batch_size=32, sequence_length=12, overlap=11, checkpoint_frequency=5)

    def train(name, trainer, **options):
        return gb.BatchProcessor(store, config, tmp_path / name, seed=1, **options).process_batches(
            trainer
        )

    plain, on_device, resumed = Sums(), Sums(), Sums()
    list(train("plain", plain))
    for number, _ in enumerate(train("device", on_device, device="cpu")):
        if number == 7:
            break
    list(train("device", resumed, device="cpu"))
    assert torch.equal(resumed.seen, plain.seen)


def test_a_pickled_loader_and_batch_go_on_as_they_were(stores):
    plain, on_device = both(stores["rows", 11])
    batch = next(iter(on_device))
    assert bits(pickle.loads(pickle.dumps(batch))) == bits(batch) == bits(next(iter(plain)))
    copied = pickle.loads(pickle.dumps(on_device))
    assert copied.device == torch.device("cpu")
    assert course(copied) == course(on_device)


def test_two_loops_over_one_loader_do_not_disturb_each_other(stores, late):
    plain, on_device = both(stores["rows", 11])
    wanted = [found for found, _ in course(plain, epochs=1)]
    one, other = on_device.whole_epoch(), on_device.whole_epoch()
    found = [(bits(a), bits(b)) for a, b in zip(one, other, strict=True)]
    assert found == [(bits_, bits_) for bits_ in wanted]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "device must be one that PyTorch knows.*got 'gpu'.*leave it out"),
        ({"device": 3.5}, "device must be one that PyTorch knows.*got 3.5"),
        ({"device": "xpu"}, "no tensor can be made on device='xpu' here .*leave it out"),
        ({"device": "cpu", "pin_memory": True}, "pin_memory is for batches on the CPU"),
    ],
)
def test_devices_that_make_no_sense_are_refused(stores, monkeypatch, options, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match=words) as caught:
        make_loader(stores["rows", 11], **options)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused_with_pytorchs_reason(stores, monkeypatch):
    def current_device():
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check.")

    monkeypatch.setattr(torch.cuda, "current_device", current_device)
    reason = r"on device='cuda' here \(Found no NVIDIA driver on your system\.\); give one"
    with pytest.raises(UsageError, match=reason):
        make_loader(stores["rows", 11], device="cuda")


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_worker_processes_are_refused(stores):
    loader = make_loader(stores["rows", 11], device="cpu")
    workers = iter(DataLoader(loader, batch_size=None, num_workers=2))
    with pytest.raises(UsageError, match="not in one of 2 workers; give DataLoader num_workers=0"):
        next(workers)
    workers._shutdown_workers()  # dropped in a cycle they would be waited for ten seconds
    alone = DataLoader(loader, batch_size=None, num_workers=0)
    assert sum(len(batch) for batch in alone) == len(stores["rows", 11])


class Recorded:
    """Stands for streams of CUDA, as its pages describe them, and notes what is asked."""

    def __init__(self, notes):
        self.notes = notes

    def wait_event(self, event):
        self.notes.append(("waits for", event))


class Event:
    notes: list

    def __init__(self, enable_timing=False, blocking=False):
        assert blocking

    def record(self, stream):
        self.notes.append(("recorded", stream))

    def synchronize(self):
        self.notes.append(("synchronized", self))


@pytest.fixture
def cuda(monkeypatch):
    """Return what is asked of CUDA, which does everything at once on the CPU."""
    notes = Event.notes = []
    own, current = Recorded(notes), Recorded(notes)

    @contextmanager
    def entered(stream):
        notes.append(("entered", stream))
        yield
        notes.append(("left", stream))

    made = torch.empty

    def empty(*shape, pin_memory=False, **options):
        notes.append(("pinned" if pin_memory else "made", shape))
        return made(*shape, **options)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: own)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda tensor, stream: notes.append(("kept for", stream)),
        raising=False,
    )
    monkeypatch.setattr(device, "lane_of", device.CudaLane)
    return notes, own, current


def test_streams_and_events_of_cuda_are_asked_for_in_their_order(stores, cuda):
    notes, own, current = cuda
    plain, on_device = both(stores["rows", 11])
    wanted = course(plain, epochs=1)
    notes.clear()
    assert course(on_device, epochs=1) == wanted
    asked = [what for what, _ in notes]
    # memory is made inside of the stream, as is all that is done
    assert all(
        asked[at - 1] == "entered" for at, what in enumerate(asked) if what in ("made", "pinned")
    )
    assert asked.count("pinned") == 2
    assert {stream for what, stream in notes if what == "recorded"} == {own}
    assert {stream for what, stream in notes if what == "kept for"} == {current}
    at = asked.index("kept for")
    assert asked[at - 1] == "waits for"
    assert "recorded" in asked[:at]
    assert "synchronized" in asked


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_a_gpu_gives_the_same_bits(stores, prefetch, cache_bytes):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    plain = make_loader(stores["rows", 11], cache_bytes=cache_bytes)
    there = make_loader(stores["rows", 11], cache_bytes=cache_bytes, device="cuda")
    for _ in range(2):
        for batch, wanted in zip(gb.DataStreamer(there, prefetch), plain, strict=True):
            assert batch.matrices.device.type == "cuda"
            assert bits(batch.to("cpu")) == bits(wanted)
            assert there.state_dict() == plain.state_dict()
