"""Leases: one holder at a time on hosts that share no disk, and a dead one's successor in time."""

from __future__ import annotations

import json
import threading
import time

import pytest

from grandbatch.errors import StoreBusyError, StoreError
from grandbatch.files import leases
from grandbatch.files.leases import hold_lease
from grandbatch.files.locations import location_of
from grandbatch.files.objects import Objects


@pytest.fixture(params=["s3", "seaweed"])
def location(bucket):
    return location_of(f"{bucket}/locks/x.lease")


@pytest.fixture
def bucket(request, monkeypatch):
    kind = request.node.callspec.params["location"]
    folder = f"s3://bars/{request.node.name.split('[')[0]}"
    if kind == "s3":
        request.getfixturevalue("s3")
        return folder
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    region = {"AWS_DEFAULT_REGION": "us-east-1"}
    endpoint = {"AWS_ENDPOINT_URL": request.getfixturevalue("seaweed_server")}
    for key, value in {**keys, **region, **endpoint}.items():
        monkeypatch.setenv(key, value)
    return folder


@pytest.fixture
def short(monkeypatch):
    """Leases that hold for two seconds."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)


def take_turns(location):
    """Have four threads hold it, and see that each does, and alone."""
    holding, most, done = [], [], []

    def work(number):
        with hold_lease(location, "a store"):
            holding.append(number)
            most.append(len(holding))
            time.sleep(0.05)
            holding.remove(number)
            done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    assert set(most) == {1}


@pytest.mark.slow
def test_one_holds_it_at_a_time_and_the_next_has_it_at_once(location, short):
    take_turns(location)
    # what was let go is waited for by nobody
    with hold_lease(location, "a store", wait=False) as lease:
        lease.check()


@pytest.mark.slow
def test_who_waits_is_told_for_whom_and_who_does_not_wait_is_refused(location, short):
    heard = []
    with hold_lease(location, "a store"):
        time.sleep(2.5)  # longer than it holds unrenewed
        with (
            pytest.raises(StoreBusyError, match=r"a store is being built by process \d+ on .* s$"),
            hold_lease(location, "a store", wait=False),
        ):
            pass
        waiting = threading.Thread(target=wait_for, args=(location, heard))
        waiting.start()
        time.sleep(2.5)
        assert waiting.is_alive(), "a lease that is renewed was taken over"
    waiting.join()
    assert heard[0].startswith("waiting for process ")
    assert heard[1:] == ["had it"]


def wait_for(location, heard):
    with hold_lease(location, "a store", on_wait=heard.append):
        heard.append("had it")


class Clock:
    """Time that passes only while somebody sleeps."""

    strftime = staticmethod(time.strftime)

    def __init__(self, patch):
        self.now = 0.0
        patch.setattr(leases, "time", self)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def dead(location, monkeypatch, owner="gone"):
    """Leave what a holder does that was killed."""
    value = {"owner": owner, "who": "process 1 on elsewhere", "seconds": 1, "count": 1}
    Objects(str(location)).write("", json.dumps({**value, "held": True}).encode())


@pytest.mark.parametrize("left", ["a lease", "no lease at all"])
def test_what_a_dead_holder_left_is_taken_over_in_its_time(location, short, monkeypatch, left):
    dead(location, monkeypatch)
    if left != "a lease":
        Objects(str(location)).write("", b"something else")
    clock = Clock(monkeypatch)
    with hold_lease(location, "a store") as lease:
        assert 1 <= clock.now < 4
        lease.renew()


@pytest.mark.slow
def test_of_many_that_wait_for_a_dead_one_each_has_it_alone(location, short, monkeypatch):
    dead(location, monkeypatch)
    take_turns(location)


def test_a_holder_whose_lease_was_taken_over_finds_out_and_leaves_it(location, short, monkeypatch):
    with hold_lease(location, "a store") as lease:
        fence = lease.fence
        fence.check()
        dead(location, monkeypatch, owner="another")
        with pytest.raises(StoreError, match=r"no longer holds .*process 1 on elsewhere has it"):
            lease.renew()
        with pytest.raises(StoreError, match=r"no longer holds .*process 1 on elsewhere has it"):
            fence.check()
        monkeypatch.setattr(leases, "_own", {})  # as in a process of its tasks
        with pytest.raises(StoreError, match=r"no longer that of the build.*process 1 on elsewhe"):
            fence.check()
    assert json.loads(Objects(str(location)).read(""))["owner"] == "another"


@pytest.mark.slow
def test_a_holder_that_can_not_renew_does_not_count_on_it(location, short, monkeypatch):
    with hold_lease(location, "a store") as lease:
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "replace", unreachable)
            time.sleep(1.7)
            with pytest.raises(StoreError, match=r"could not be renewed for 2 s"):
                lease.check()
        lease.renew()  # nobody else came


def unreachable(*_):
    raise ConnectionError("the line is dead")


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_held(
    location, short, monkeypatch
):
    monkeypatch.setattr(Objects, "create", lambda self, name, data: self.write(name, data))
    monkeypatch.setattr(leases, "_checked", set())
    with (
        pytest.raises(StoreError, match=r"doesn't refuse to create what is there"),
        hold_lease(location, "a store"),
    ):
        pass
    with pytest.raises(FileNotFoundError):
        Objects(str(location)).read("")
