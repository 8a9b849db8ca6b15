"""The tables of docs/inputs.md: what vendors write is read by what stands beside it."""

import datetime as dt
import inspect
import re
from pathlib import Path

import pytest
from advice import rules_of

from grandbatch.bars import prepare_bars
from grandbatch.cli.options import RuleFlags
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"
BAR = {"open": 10.5, "high": 12, "low": 9.25, "close": 11}
NO_VOLUME = "--no-volume"
DAY = dt.datetime(2024, 1, 16, tzinfo=dt.UTC)


def cells(heading):
    """Rows of the table below a heading."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


VENDORS = {row[0]: row[1:] for row in cells("What your vendor writes, and what to type")}


@pytest.mark.parametrize("name", VENDORS)
def test_what_a_vendor_writes_is_read_by_what_to_type(name, tmp_path):
    lines, typed = (re.findall(r"`([^`]+)`", cell) for cell in VENDORS[name])
    rules = rules_of(" ".join(typed))
    text = "\r\n".join([*lines, ""]).replace("⇥", "\t")
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode(rules.encoding or "utf-8"))
    bars = prepare_bars(path, tmp_path / "cache", rules, HERE)
    rows = bars.read(0, bars.n_rows)
    assert bars.n_rows == 1
    assert {column: rows[column][0] for column in BAR} == BAR
    assert rows["volume"][0] == (0 if NO_VOLUME in " ".join(typed) else 100)
    moment = dt.datetime.fromtimestamp(int(rows["timestamp"][0]) // 10**9, dt.UTC)
    assert moment in (DAY, DAY.replace(hour=17))
    assert not bars.quarantined


def test_there_are_at_least_25_vendors():
    assert len(VENDORS) >= 25


def test_every_flag_stands_in_the_table_with_an_example_that_parses():
    told = " ".join(row[0] for row in cells("Every flag"))
    examples = re.findall(r"`([^`]+)`", told)
    for example in examples:
        rules_of(example)
    names = {example.split()[0].removeprefix("--no-").removeprefix("--") for example in examples}
    wanted = {
        name.replace("_", "-").removeprefix("no-")
        for name in inspect.signature(RuleFlags).parameters
    }
    assert names == wanted
