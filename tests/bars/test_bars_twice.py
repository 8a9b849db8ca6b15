"""A task that a cluster runs twice never touches the file that the other run has finished."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from simulated import write_bars

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building import block as pieces
from grandbatch.bars.building import raw
from grandbatch.errors import InputError
from grandbatch.scheduling import Schedule

INPUTS = {
    "parts": {"rows": 40_000, "symbols": 1, "rules": BarRules()},
    "raw": {"rows": 3000, "symbols": 3, "rules": BarRules()},
    "sorted": {"rows": 3000, "symbols": 3, "rules": BarRules(sort=True)},
}


def contents(folder: Path):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run_twice(monkeypatch, again) -> None:
    real = Schedule.run

    def run(schedule, calls, *heard):
        twice = [partial(again(call.func), *call.args) for call in calls]
        return real(schedule, twice, *heard)

    monkeypatch.setattr(Schedule, "run", run)


def spoil(source: Path) -> None:
    """Make some rows bad."""
    lines = source.read_text().splitlines()
    for number in range(100, len(lines), 1000):
        lines[number] = lines[number].replace(lines[number].split(",")[2], "x", 1)
        lines[number + 50] = lines[number + 49]
    source.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", INPUTS)
def test_a_task_that_runs_again_and_is_cut_off_leaves_what_is_finished(tmp_path, monkeypatch, kind):
    given = INPUTS[kind]
    source = write_bars(tmp_path / "b.csv", given["rows"], symbols=given["symbols"])
    spoil(source)
    expected = contents(prepare_bars(source, tmp_path / "plain", given["rules"]).path)
    stopped = []

    def again(function):
        def run(*values):
            result = function(*values)
            write_table = pq.write_table

            def cut(table, where, **options):
                write_table(table.slice(0, table.num_rows // 2), where, **options)
                stopped.append(where)
                raise InputError("the worker was cut off")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pieces.pq, "write_table", cut)
                patch.setattr(raw, "write_whole", lambda path, data, **_: stopped.append(path))
                with suppress(InputError):
                    function(*values)
            return result

        run.__name__ = function.__name__
        return run

    run_twice(monkeypatch, again)
    found = prepare_bars(source, tmp_path / "twice", given["rules"], Schedule.local("sync"))
    assert stopped
    assert contents(found.path) == expected


@pytest.mark.parametrize("kind", INPUTS)
def test_a_reader_of_a_finished_piece_sees_it_whole_while_it_is_written_again(
    tmp_path, monkeypatch, kind
):
    given = INPUTS[kind]
    source = write_bars(tmp_path / "b.csv", given["rows"], symbols=given["symbols"])
    spoil(source)
    expected = contents(prepare_bars(source, tmp_path / "plain", given["rules"]).path)
    seen = []

    def watched(function):
        def run(*values):
            result = function(*values)
            pieces = next((tmp_path / "cache").glob("*/pieces"))
            finished = {
                path: path.read_bytes() for path in pieces.iterdir() if "partial" not in path.name
            }
            done = threading.Event()

            def look():
                while not done.is_set():
                    for path, data in finished.items():
                        seen.append(path.read_bytes() == data)

            reader = threading.Thread(target=look)
            reader.start()
            for _ in range(5):
                function(*values)
            done.set()
            reader.join()
            return result

        run.__name__ = function.__name__
        return run

    run_twice(monkeypatch, watched)
    found = prepare_bars(source, tmp_path / "cache", given["rules"], Schedule.local("sync"))
    assert seen
    assert all(seen)
    assert contents(found.path) == expected
