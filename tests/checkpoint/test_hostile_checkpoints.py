"""A checkpoint that somebody made takes no more memory than its file, or is refused."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import grandbatch as gb
from grandbatch.checkpoint import MAGIC, CheckpointManager
from grandbatch.checkpoint import encoding as bytes_of_checkpoints
from grandbatch.checkpoint.payload import check_archive, check_state
from grandbatch.errors import CheckpointError, UsageError

LOADER = {"position": {"chunk_index": 5, "offset": 96}}


def write(path: Path, header: dict | None = None, payload: bytes | None = None) -> Path:
    """Write a checkpoint whose digests fit."""
    sound = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, sound)
    payload = sound.getvalue() if payload is None else payload
    value = {
        "format": 1, "step": 1, "content_id": "x", "position": None, "loader_state": LOADER,
        "metrics": {}, "payload_bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(), **(header or {}),
    }  # fmt: skip
    head = json.dumps(value).encode()
    path.write_bytes(
        struct.pack("<8sQ32s", MAGIC, len(head), hashlib.sha256(head).digest()) + head + payload
    )
    return path


def torch_file(pickled: bytes, kind: int = zipfile.ZIP_STORED, record: bytes = bytes(8)) -> bytes:
    """Make what torch.save writes, with a pickle of one's own."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", record)
    return out.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<I", value)


def state(value: bytes) -> bytes:
    return b"\x80\x02}" + text("a") + value + b"s."


def tensor(n_stored: int, size: int, stride: int) -> bytes:
    stored = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(n_stored) + b"tQK\x00"
        + number(size) + b"\x85" + number(stride) + b"\x85\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


LARGE = 2_000_000_000
ENCODE = b"c_codecs\nencode\n"
LAUGHS = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(40))
BOMBS = {
    "bytearray": state(b"c__builtin__\nbytearray\n" + number(LARGE) + b"\x85R"),
    "bytes": state(b"c__builtin__\nbytes\n" + number(LARGE) + b"\x85R"),
    "expanded": state(tensor(2, LARGE, 0)),
    "claimed": state(tensor(LARGE // 4, LARGE // 4, 1)),
    "empty": state(b"ctorch\nempty\n" + number(LARGE) + b"\x85R"),
    "encoded": state(
        b"](" + text("x" * 200_000) + b"q\x01" + text("latin1") + b"q\x02" + ENCODE + b"q\x03"
        + b"h\x03h\x01h\x02\x86R" * 20_000 + b"e"
    ),
    "tupled": state(
        b"](" + text("x" * 200_000) + text("latin1") + b"\x86q\x01" + ENCODE + b"q\x03"
        + b"h\x03h\x01R" * 20_000 + b"e"
    ),
    "laughs": state(LAUGHS),
    "bytearray8": state(b"\x96" + struct.pack("<Q", LARGE)),
    "nested": state(b"]" * 100_000 + b"a" * 99_999),
    "persistent": state(b"Pabc\n"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_takes_no_memory(name, tmp_path):
    path = write(tmp_path / "step-000000001.ckpt", payload=torch_file(BOMBS[name]))
    code = (
        "import resource, sys, torch\n"
        "from grandbatch.checkpoint import read_checkpoint\n"
        "from grandbatch.errors import CheckpointError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_checkpoint(sys.argv[1])\n"
        "except CheckpointError as error: print(error)\n"
        "else: print('was read')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True,
    )  # fmt: skip
    told, megabytes = ran.stdout.splitlines()
    assert "and was not executed" in told
    assert int(megabytes) < 100


def test_packed_records_are_refused(tmp_path):
    sound = tensor(2_000_000, 2_000_000, 1)
    payload = torch_file(state(sound), zipfile.ZIP_DEFLATED, bytes(8_000_000))
    assert len(payload) < 100_000
    with pytest.raises(CheckpointError, match="packed"):
        gb.checkpoint.read_checkpoint(write(tmp_path / "c", payload=payload))


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path):
    path = write(tmp_path / "c", header={"payload_bytes": 2**40})
    os.truncate(path, 2**40)
    with pytest.raises(CheckpointError, match=r"1,099,511,627,776 bytes of state, at most"):
        gb.checkpoint.read_checkpoint(path)


def test_a_state_above_the_cap_is_not_written_either(tmp_path, monkeypatch):
    monkeypatch.setattr(bytes_of_checkpoints, "MAX_PAYLOAD_BYTES", 100_000)
    manager = CheckpointManager(tmp_path, content_id="x")
    with pytest.raises(UsageError, match="above the 100,000 that a checkpoint may have"):
        manager.save(1, {"w": torch.zeros(100_000)}, LOADER, {})


def test_a_pipe_in_a_checkpoints_place_is_passed_over_and_not_waited_for(tmp_path):
    manager = CheckpointManager(tmp_path, content_id="x")
    manager.save(1, {"w": torch.zeros(3)}, LOADER, {})
    os.mkfifo(tmp_path / "step-000000002.ckpt")
    (tmp_path / "step-000000003.ckpt").symlink_to("/dev/zero")
    assert manager.load().step == 1
    assert [bool(info.problem) for info in manager.list()] == [False, True, True]


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
    torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint16,
    torch.float8_e4m3fn,
]  # fmt: skip


def test_whatever_a_state_may_hold_is_read_back(tmp_path):
    shared = torch.arange(6.0)
    made = {
        **{str(dtype): torch.zeros(3, dtype=dtype) for dtype in DTYPES},
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "views": [shared, shared[2:], shared.view(2, 3).T],
        "nothing": torch.zeros(0),
        "scalar": torch.tensor(3),
        "values": (1, -(2**70), 2.5, math.nan, None, True, "ü\x1b", b"\x00\xff", b"a", b"a", "a"),
        "nested": {"a": {1: [(), [], {}]}},
    }
    model = torch.nn.LSTM(3, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 1, 3))[0].sum().backward()
    optimizer.step()
    made |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    manager = CheckpointManager(tmp_path, content_id="x")
    manager.save(1, made, LOADER, {})
    read = manager.load().trainer_state
    assert read["values"][4:] == made["values"][4:]
    assert torch.equal(read["views"][2], made["views"][2])
    assert read["nested"] == made["nested"]
    for name, value in model.state_dict().items():
        assert torch.equal(read["model"][name], value)
    assert all(read[str(dtype)].dtype == dtype for dtype in DTYPES)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(1000),
        torch.zeros(4, 4).to_sparse(),
        torch.empty(3, device="meta"),
        b"",
    ],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_saved(tmp_path, value):
    manager = CheckpointManager(tmp_path, content_id="x")
    with pytest.raises(UsageError, match=r"trainer_state\['w'\].*read (it )?back"):
        manager.save(1, {"w": value}, LOADER, {})


@pytest.mark.parametrize(
    ("value", "said"),
    [(math.inf, "Infinity is no number of JSON"), (10**400, "401 digits is beyond the doubles")],
    ids=["infinity", "digits"],
)
def test_a_header_with_a_number_that_no_double_is_is_damaged(tmp_path, value, said):
    for part in ("metrics", "loader_state"):
        path = write(tmp_path / "c", header={part: {"avg_reward": value}})
        with pytest.raises(CheckpointError, match=said):
            gb.checkpoint.read_checkpoint(path)
    manager = CheckpointManager(tmp_path / "kept", content_id="x")
    with pytest.raises(UsageError, match="loader_state"):
        manager.save(1, {}, {"seed": value}, {})


def test_a_header_whose_number_is_written_too_large_is_damaged(tmp_path):
    path = write(tmp_path / "c", header={"loader_state": {"share": "much"}})
    data = path.read_bytes()
    head, payload = data[48:].split(b"PK", 1)
    head = head.replace(b'"much"', b"1e4000")
    path.write_bytes(
        struct.pack("<8sQ32s", MAGIC, len(head), hashlib.sha256(head).digest())
        + head + b"PK" + payload
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="1e4000 is beyond the doubles"):
        gb.checkpoint.read_checkpoint(path)


WRONG = (
    math.inf, -math.inf, math.nan, -1, -2, 2**62, 2**70, 10**400, 1.5, True, None, "x", "1", [],
    {}, [[]], [None], {"a": 1},
)  # fmt: skip


def leaves(value, path=()):
    yield path
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, (*path, key))


def put(value, path, wrong):
    changed = copy.deepcopy(value)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    return changed


def batches(loader, most=3):
    found = []
    for batch in loader:
        found.append(batch.index.numpy().copy())
        if len(found) == most:
            break
    return found


def test_a_loaders_state_with_any_value_changed_is_an_error_or_gives_windows_of_the_store(
    make_store,
):
    store = make_store(700, overlap=40, name="s.zarr")
    config = gb.BatchConfig(batch_size=16, sequence_length=48, overlap=40, adaptive=False)

    def make():
        return gb.SlidingWindowDataLoader(store, config, shuffle=True)

    loader = make()
    for number, _ in enumerate(loader):
        if number == 1:
            break
    sound = loader.state_dict()
    json.dumps(sound, allow_nan=False)
    expected = make()
    expected.load_state_dict(sound)
    expected = batches(expected)
    n_refused = n_tried = 0
    for path in list(leaves(sound))[1:]:
        for wrong in WRONG:
            n_tried += 1
            changed = put(sound, path, wrong)
            if changed == sound:
                continue
            again = make()
            try:
                again.load_state_dict(changed)
            except CheckpointError:
                n_refused += 1
                continue
            got = batches(again)
            assert all(((index >= 0) & (index < len(store))).all() for index in got)
            # what only tells where a run stood changes nothing; another epoch is another order
            told = path[-1] in ("step", "chunk_index", "offset", "batch_size")
            if told:
                assert all(map(np.array_equal, got, expected))
            else:
                assert path[-1] in ("epoch", "next_block", "open_spans") or "open_spans" in path
    assert n_refused > 0.8 * n_tried


@pytest.mark.slow
def test_a_trainings_checkpoint_with_wrong_sums_or_state_is_a_checkpoint_error(
    make_store, tmp_path
):
    store = make_store(400, overlap=12, chunk_windows=8, name="s.zarr")
    folder = tmp_path / "checkpoints"

    class Trainer:
        def train_batch(self, batch):
            return {"avg_reward": 1.0, "avg_loss": 1.0}

        def state_dict(self):
            return {"w": torch.zeros(2)}

        def load_state_dict(self, state):
            torch.nn.Linear(1, 2).bias.data.copy_(state["w"])

    def run(resume=True):
        config = gb.BatchConfig(batch_size=2, sequence_length=48, overlap=12)
        processor = gb.BatchProcessor(store, config, folder, resume=resume)
        return list(processor.process_batches(Trainer()))

    run(resume=False)
    (path, *_) = folder.glob("*.ckpt")
    data = path.read_bytes()
    _, n_head, _ = struct.unpack("<8sQ32s", data[:48])
    header, payload = json.loads(data[48 : 48 + n_head]), data[48 + n_head :]
    states = header["loader_state"]
    for place in list(leaves(states))[1:]:
        for wrong in (math.inf, -1, None, "x", [], {}):
            changed = put(states, place, wrong)
            if changed == states:
                continue
            write(path, {**header, "loader_state": changed}, payload)
            try:
                run()
            except CheckpointError:
                continue
            if "open_spans" in place and wrong == []:
                continue  # of another number of ranks, or one without open spans
            if place[-1] in ("sums", "validation") and wrong == {}:
                continue  # as of a trainer that tells no metrics
            if place[0] == "lineage" and ("had" in place or "fingerprint" in place):
                continue  # as of a training that had other windows
            assert place[0] in ("batch_size", "settings", "position") or place[-1] in (
                "step", "chunk_index", "offset", "batch_size", "avg_reward", "avg_loss",
            ), (place, wrong)  # fmt: skip
    kept = {name: header[name] for name in ("step", "content_id", "loader_state", "metrics")}
    write(path, kept, torch_file(state(tensor(2, 1, 1))))
    with pytest.raises(CheckpointError, match="does not fit this trainer"):
        run()


def test_the_checks_of_a_payload_take_little_time():
    buffer = io.BytesIO()
    made = {f"layer{n}": torch.zeros(1000) for n in range(2000)}
    torch.save(made, buffer)
    check_archive(buffer.getvalue())
    check_state(made, len(buffer.getvalue()))
