"""Objects at URLs: verbs and conditions on three kinds of store, and what a bad wire does."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from object_servers import free_ports

from grandbatch.errors import DiskFullError, StoreError, UsageError
from grandbatch.files import locations, patience
from grandbatch.files.objects import ObjectChangedError, Objects, Patience, WireError
from grandbatch.files.refusals import check_conditions

SHORT = Patience(request_seconds=1, total_seconds=1.5)
on_a_server = pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
NAMES = ["a", "b/c.bin", "b/d e.bin", "b/symbol=ES/ü#?%20.bin", "z"]


def test_what_was_written_is_read_listed_and_deleted(bucket):
    objects = Objects(f"{bucket}/folder")
    written = {name: os.urandom(10 + at) for at, name in enumerate(NAMES)}
    versions = {name: objects.write(name, data) for name, data in written.items()}
    Objects(bucket).write("folder-beside/x", b"not below it")
    assert {name: objects.read(name) for name in NAMES} == written
    assert objects.read_version("a") == (written["a"], versions["a"])
    listed = objects.list()
    assert [(one.name, one.n_bytes, one.version) for one in listed] == [
        (name, len(written[name]), versions[name]) for name in sorted(NAMES)
    ]
    assert [one.name for one in objects.list("b/symbol=ES")] == [NAMES[3]]
    assert objects.head("z") == listed[-1]
    objects.copy("a", "b/a")
    assert objects.at("b").read("a") == written["a"]
    assert Objects(f"{bucket}/folder/b/c.bin").read("") == written["b/c.bin"]
    objects.delete([*NAMES, "b/a", "was never there"])
    assert objects.list() == []
    assert [one.name for one in Objects(bucket).list()] == ["folder-beside/x"]


def test_an_empty_object_and_one_of_several_requests_are_whole(bucket, monkeypatch):
    monkeypatch.setattr("grandbatch.files.objects.REQUEST_BYTES", 5 * 2**20)
    objects, large = Objects(bucket), os.urandom(13 * 2**20 + 7)
    objects.write("empty", b"")
    objects.write("large", memoryview(large))
    assert objects.read("empty") == b""
    assert objects.read("large") == large


def test_ranges_are_those_of_the_object_and_end_with_it(bucket):
    objects, data = Objects(bucket), bytes(range(200))
    objects.write("a", data)
    wanted = [(0, 3), (3, 10), (150, 160), (20, 20), (190, 300), (200, 201), (500, 600)]
    for gap in (0, 20, 1000):
        for some in (wanted, wanted[:3], wanted[-1:]):
            found = objects.read_ranges("a", some, gap)
            assert [bytes(one) for one in found] == [data[lo:hi] for lo, hi in some]


@on_a_server
def test_buffers_are_filled_one_after_the_other_and_end_with_the_object(bucket):
    objects, data = Objects(bucket), os.urandom(1_500_000)
    objects.write("a", data)
    file = locations.open_location(locations.location_of(f"{bucket}/a"))
    for sizes in ([10], [1, 0, 300_000, 7, 0], [600_000, 600_000, 299_990], [10, 2_000_000, 5]):
        buffers = [bytearray(size) for size in sizes]
        n_bytes = min(sum(sizes), len(data) - 10)
        assert file.read_into(buffers, 10) == n_bytes
        assert b"".join(buffers) == data[10 : 10 + n_bytes].ljust(sum(sizes), b"\0")
    assert file.read_into([bytearray(5)], len(data)) == 0
    assert file.read_into([bytearray(0)], 3) == 0


@on_a_server
def test_what_comes_piece_by_piece_comes_again_where_its_answer_was_cut(bucket, wire):
    objects, data = Objects(bucket), os.urandom(2_000_000)
    objects.write("a", data)
    found, pieces = bytearray(len(data)), []

    def take(at, piece):
        pieces.append((at, len(piece)))
        found[at : at + len(piece)] = piece
        if len(pieces) == 4:
            wire.cut_after = None

    wire.cut_after = 700_000
    wire.drop()
    assert objects.receive("a", 0, len(data), take) == len(data)
    assert found == data
    assert max(size for _, size in pieces) < locations.TAKEN_BYTES
    assert [at for at, _ in pieces].count(0) > 1
    with pytest.raises(OSError, match="full"):
        objects.receive("a", 0, len(data), full)


def full(_at, _piece):
    raise OSError(28, "the disk is full")


@pytest.mark.slow
def test_of_sixteen_that_create_or_replace_at_once_one_wins(bucket):
    objects = Objects(bucket)

    def race(verb, word):
        together = threading.Barrier(16)

        def one(number):
            together.wait()
            try:
                return verb(b"%s %02d" % (word, number))
            except (FileExistsError, ObjectChangedError):
                return None

        with ThreadPoolExecutor(16) as pool:
            won = [(n, version) for n, version in enumerate(pool.map(one, range(16))) if version]
        [(winner, version)] = won
        assert objects.read_version("lease") == (b"%s %02d" % (word, winner), version)
        return version

    version = race(lambda data: objects.create("lease", data), b"created by")
    race(lambda data: objects.replace("lease", data, version), b"replaced by")


def test_a_missing_object_and_a_missing_bucket_are_told(bucket):
    for verb in (Objects(bucket).read, Objects(bucket).head):
        with pytest.raises(FileNotFoundError, match="no such object") as told:
            verb("nothing")
        assert told.value.filename == f"{bucket}/nothing"
    with pytest.raises(FileNotFoundError):
        Objects(bucket).read_ranges("nothing", [(0, 1), (5, 9)])
    with pytest.raises(ObjectChangedError):
        Objects(bucket).replace("nothing", b"", '"0"')
    if bucket.startswith("s3"):
        with pytest.raises(FileNotFoundError, match=r"no such bucket.*s3://no-bucket"):
            Objects("s3://no-bucket").list()


def test_the_conditions_that_builders_need_are_checked_and_nothing_stays(bucket):
    check_conditions(Objects(f"{bucket}/x"))
    assert Objects(bucket).list() == []


def test_a_server_without_conditions_is_told_what_it_lacks(tmp_path):
    with pytest.raises(StoreError, match=r"replace a version that is named"):
        check_conditions(Objects(f"file://{tmp_path}"))
    assert list(tmp_path.iterdir()) == []


def test_what_opens_no_object_store_is_refused(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"ftp://a/b is no URL of an object store.*s3://"):
        Objects("ftp://a/b").read("c")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(PermissionError, match=r"no credentials are found; set AWS_ACC.*'s3://a'"):
        Objects("s3://a").read("b")


@on_a_server
def test_refused_credentials_name_the_object(bucket, monkeypatch):
    Objects(bucket).write("a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for verb in (Objects(bucket).read, Objects(bucket).head, lambda name: Objects(bucket).list()):
        with pytest.raises(PermissionError, match=r"refuses.*check the credentials") as told:
            verb("a")
        assert told.value.filename.startswith(bucket)


@on_a_server
def test_credentials_and_endpoint_may_be_a_profiles(bucket, monkeypatch, tmp_path):
    Objects(bucket).write("a", b"1")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {endpoint}\n"
        "aws_access_key_id = testing\naws_secret_access_key = testing\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert Objects(bucket).read("a") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(PermissionError, match=r"other.*could not be found"):
        Objects(bucket).read("a")


@pytest.mark.slow
@on_a_server
@pytest.mark.parametrize("fault", ["down", "cut", "503", "reset"])
def test_a_fault_that_passes_is_waited_for(bucket, wire, fault):
    objects, data = Objects(bucket), os.urandom(300_000)
    objects.write("a", data)
    if fault == "cut":
        wire.cut_after = 100_000
    elif fault == "503":
        wire.answer = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"
    else:
        wire.down = True
    if fault != "reset":
        wire.drop()
    threading.Timer(0.6, wire.well).start()
    assert objects.read("a") == data
    objects.write("b", data)
    assert objects.head("b").n_bytes == len(data)


@pytest.mark.slow
@on_a_server
@pytest.mark.parametrize("fault", ["down", "cut", "503", "stalled"])
def test_a_fault_that_stays_ends_in_time_and_is_the_wires(bucket, wire, fault, caplog, monkeypatch):
    monkeypatch.setattr(patience, "_TOLD_FROM", 0.1)
    monkeypatch.setattr(patience, "_told_at", {})
    objects, data = Objects(bucket, SHORT), os.urandom(300_000)
    Objects(bucket).write("a", data)
    if fault == "cut":
        wire.cut_after = 100_000
    elif fault == "503":
        wire.answer = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"
    else:
        setattr(wire, fault, True)
    wire.drop()
    # of those that grow from 0.1 s, so many pauses and answers waited for have room in its time
    most = 2 if fault == "stalled" else 5
    with caplog.at_level(logging.WARNING, "grandbatch"):
        for verb in (lambda: objects.read("a"), lambda: objects.read_ranges("a", [(0, 200_000)])):
            words = rf"{bucket}/a: no whole answer in \d+ s and (\d+) tries .* try again"
            with pytest.raises(WireError, match=words) as told:
                verb()
            assert int(re.search(words, str(told.value))[1]) <= most
    assert len(caplog.records) == 1
    wire.well()
    assert Objects(bucket).read("a") == data


@pytest.mark.slow
@on_a_server
def test_a_server_that_takes_no_bytes_any_more_ends_a_write(bucket, wire):
    Objects(bucket).write("a", b"1")
    wire.stalled = True
    with pytest.raises(WireError):
        Objects(bucket, SHORT).write("a", bytes(8 * 2**20))


@on_a_server
def test_a_condition_whose_answer_was_lost_is_known_for_ones_own(bucket, wire):
    objects = Objects(bucket)
    wire.cut_after = 0
    wire.drop()
    threading.Timer(0.3, wire.well).start()
    version = objects.create("lease", b"mine")
    assert objects.read_version("lease") == (b"mine", version)
    wire.cut_after = 0
    wire.drop()
    threading.Timer(0.3, wire.well).start()
    assert objects.read_version("lease")[1] != objects.replace("lease", b"mine again", version)
    wire.cut_after = 0
    wire.drop()
    threading.Timer(0.3, wire.well).start()
    with pytest.raises(FileExistsError):
        objects.create("lease", b"another's")


@on_a_server
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("507 Insufficient Storage", "InsufficientStorage", DiskFullError),
        ("403 Forbidden", "QuotaExceeded", DiskFullError),
        ("400 Bad Request", "ExpiredToken", PermissionError),
        ("400 Bad Request", "InvalidArgument", OSError),
        ("503 Service Unavailable", "SlowDown", WireError),
    ],
)
def test_what_a_server_says_is_what_is_told(bucket, wire, status, code, kind):
    body = f"<Error><Code>{code}</Code><Message>so it is</Message></Error>"
    wire.answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    with pytest.raises(kind, match=f"{code}: so it is") as told:
        Objects(bucket, SHORT).write("a", b"1")
    assert type(told.value) is kind


def _read_in_child(objects, results):
    results.put(objects.read("a"))


def test_a_forked_and_a_spawned_process_read_too(bucket):
    objects = Objects(bucket)
    objects.write("a", b"from the first process")
    # what is in memory is no other process's, but a forked one's own
    assert pickle.loads(pickle.dumps(objects)) == objects
    if bucket.startswith("memory"):
        return
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.SimpleQueue()
        child = context.Process(target=_read_in_child, args=(objects, results))
        child.start()
        child.join()
        assert child.exitcode == 0, method
        assert results.get() == b"from the first process"


def test_the_door_is_made_without_loading_any_client():
    code = """
import sys, grandbatch.files.objects as door
door.Objects("s3://a").at("b")
print(sorted({"obstore", "botocore", "fsspec"} & sys.modules.keys()))
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "[]\n"


def test_a_port_that_nobody_listens_on_is_the_wires(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(WireError, match=r"s3://a/b: no whole answer in \d+ s and \d+ tries"):
        Objects("s3://a", Patience(1, 0.3)).read("b")


@pytest.mark.slow
@on_a_server
def test_a_long_read_goes_on_where_its_answer_was_cut(bucket, wire):
    objects, data = Objects(bucket), os.urandom(3 * 2**20)
    version = objects.write("a", data)
    wire.cut_after = 700_000
    before, at_once = wire.requests, wire.answered_bytes
    assert objects.read_on("a", 100, len(data)) == (data[100:], version)
    assert 4 < wire.requests - before < 8
    # of each answer a little is lost
    assert wire.answered_bytes - at_once < len(data) + 8 * 100_000
    wire.cut_after = None
    assert objects.read_on("a", 5, 2**30) == (data[5:], version)
    assert objects.read_on("a", 7, 7, version) == (b"", version)


@on_a_server
def test_a_long_read_never_joins_two_versions(bucket, wire, monkeypatch):
    objects, data = Objects(bucket), os.urandom(2**20)
    version = objects.write("a", data)
    objects.write("a", data[::-1])
    with pytest.raises(ObjectChangedError):
        objects.read_on("a", 0, 100, version)

    def replaced(_seconds):
        # each time another: the first try may end on a dropped connection, before a version is told
        wire.cut_after = None
        objects.write("a", os.urandom(len(data)))
        wire.cut_after = 300_000

    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=time.monotonic, sleep=replaced))
    wire.cut_after = 300_000
    wire.drop()
    with pytest.raises(ObjectChangedError):
        objects.read_on("a", 0, len(data))


@on_a_server
def test_a_long_read_gives_up_in_its_time(bucket, wire):
    Objects(bucket).write("a", b"1" * 10**6)
    wire.cut_after = 10  # not even a head
    with pytest.raises(WireError, match=r"/a: no whole answer in .* tries .*try again"):
        Objects(bucket, SHORT).read_on("a", 0, 10**6)
