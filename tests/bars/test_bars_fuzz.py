"""Bars written in random forms come back exactly, and of damaged rows exactly those are missing.

`GRANDBATCH_EXAMPLES` sets how many files each property tries.
"""

import datetime as dt
import gzip
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.errors import InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
EXAMPLES = int(os.environ.get("GRANDBATCH_EXAMPLES", "30"))
START = dt.datetime(2024, 1, 1)
COLUMNS = ("timestamp", "symbol", "open", "high", "low", "close", "volume")
NUMBERS = COLUMNS[2:]


@dataclass(frozen=True)
class Form:
    """One way of writing bars as text."""

    time: str
    columns: tuple[str, ...]
    delimiter: str
    decimal: str
    end: str
    quoted: bool
    mark: bool
    header: bool
    packed: bool
    last_end: bool

    def line(self, bar):
        moment, symbol, *numbers = bar
        texts = [repr(number).replace(".", self.decimal) for number in numbers]
        known = dict(zip(COLUMNS, [self.moment(moment), symbol, *texts], strict=True))
        fields = [known.get(column, "x y") for column in self.columns]
        return [f'"{field}"' if self.quoted else field for field in fields]

    def moment(self, moment):
        if self.time.startswith("epoch"):
            seconds = int((moment - dt.datetime(1970, 1, 1)).total_seconds())
            return f"{seconds}{'0' * int(self.time[5:])}"
        return moment.strftime(self.time)

    def rules(self, **others):
        return BarRules(
            header=self.header,
            names=() if self.header else self.columns,
            delimiter=self.delimiter,
            decimal=self.decimal,
            dayfirst=True,
            **others,
        )

    def prepare(self, lines, folder, block_bytes, **others):
        data = self.end.encode().join(lines) + (self.end.encode() if self.last_end else b"")
        if self.header:
            data = self.delimiter.join(self.columns).encode() + self.end.encode() + data
        if self.mark:
            data = b"\xef\xbb\xbf" + data
        path = Path(folder) / ("x.csv.gz" if self.packed else "x.csv")
        path.write_bytes(gzip.compress(data, 1, mtime=0) if self.packed else data)
        cache = f"{folder}/cache-{block_bytes}"
        return prepare_bars(path, cache, self.rules(**others), HERE, block_bytes)


@st.composite
def forms(draw):
    delimiter = draw(st.sampled_from(",;\t|"))
    extra = draw(st.lists(st.sampled_from(["note", "adj close", "rank"]), unique=True))
    return Form(
        time=draw(
            st.sampled_from(
                [
                    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y%m%d %H%M%S", "%d/%m/%Y %H:%M"),
                    *("%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %I:%M:%S %p", "epoch0", "epoch3", "epoch9"),
                    *("%-d/%-m/%Y %-H:%M", "%Y-%m-%d %H:%M:%S+00:00", "%Y/%m/%d %H:%M", "epoch6"),
                ]
            )
        ),
        columns=tuple(draw(st.permutations([*COLUMNS, *extra]))),
        delimiter=delimiter,
        decimal=draw(st.sampled_from(".," if delimiter != "," else ".")),
        end=draw(st.sampled_from(["\n", "\r\n"])),
        quoted=draw(st.booleans()),
        mark=draw(st.booleans()),
        header=draw(st.booleans()),
        packed=draw(st.integers(0, 5)) == 0,
        last_end=draw(st.booleans()),
    )


prices = st.one_of(
    st.floats(1e-9, 1e9),
    st.integers(1, 10**6).map(float),
    st.integers(1, 10**7).map(lambda n: n / 100),
)


@st.composite
def some_bars(draw):
    """Bars whose times rise, of a few symbols."""
    bars = []
    for minute in range(draw(st.integers(1, 20))):
        a, b, c, d = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        opened, close = draw(st.permutations([b, c]))
        volume = draw(st.one_of(st.just(0.0), prices))
        symbol = draw(st.sampled_from(["A", "BRK.B", "\u00e4/..", "CON"]))
        bars.append((START + dt.timedelta(minutes=7 * minute), symbol, opened, d, a, close, volume))
    return bars


def contents(bars):
    rows = bars.read(0, len(bars))
    times = rows["timestamp"].tolist()
    return [
        (START + dt.timedelta(microseconds=(t - 1704067200 * 10**9) // 1000), bars.symbols[s], *n)
        for t, s, *n in zip(times, *(rows[name].tolist() for name in COLUMNS[1:]), strict=True)
    ]


def in_bars_order(bars):
    return sorted(bars, key=lambda bar: (bar[1], bar[0]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(some_bars(), forms(), st.one_of(st.none(), st.integers(30, 900)))
def test_bars_in_any_form_come_back_exactly(bars, form, block_bytes):
    lines = [form.delimiter.join(form.line(bar)).encode() for bar in bars]
    with tempfile.TemporaryDirectory() as folder:
        read = form.prepare(lines, folder, block_bytes, max_bad_fraction=0.0)
        assert contents(read) == in_bars_order(bars)
        assert read.quarantined == {}


def drop_field(fields, at, _):
    return fields[:at] + fields[at + 1 :]


def double_field(fields, at, _):
    return fields[:at] + fields[at : at + 1] * 2 + fields[at + 1 :]


def put(text):
    def damage(fields, _, form):
        at = form.columns.index("high")
        return [*fields[:at], text, *fields[at + 1 :]]

    return damage


def put_in_time(text):
    def damage(fields, _, form):
        at = form.columns.index("timestamp")
        return [*fields[:at], text, *fields[at + 1 :]]

    return damage


def flip_high_bit(fields, at, form):
    at = form.columns.index(("timestamp", *NUMBERS)[at % 6])
    field = bytearray(fields[at].encode())
    field[len(field) // 2] ^= 0x80
    return [*fields[:at], bytes(field), *fields[at + 1 :]]


def open_a_quote(fields, _, __):
    return ['"' + fields[0].strip('"'), *fields[1:-1], fields[-1].strip('"')]


DAMAGES = {
    drop_field: {"unparseable"},
    double_field: {"unparseable"},
    flip_high_bit: {"unparseable"},
    open_a_quote: {"unparseable"},
    put(""): {"missing"},
    put("NA"): {"missing"},
    put("in\0f"): {"unparseable"},
    put("inf"): {"not_finite"},
    put("nan"): {"not_finite"},
    put("1e400"): {"not_finite"},
    put("9" * 400): {"not_finite"},
    put("1_000"): {"unparseable"},
    put("0x10"): {"unparseable"},
    put("\u0661"): {"unparseable"},
    put("0"): {"non_positive_price"},
    put("-1e-12"): {"non_positive_price"},
    put("1e-12"): {"ohlc_inconsistent"},
    put("-1e-300"): {"non_positive_price"},
    put("1e-300"): {"ohlc_inconsistent"},
    put_in_time(""): {"missing"},
    put_in_time("2024-02-30"): {"unparseable"},
    put_in_time("1" * 25): {"unparseable"},
    put_in_time("1700-01-01"): {"out_of_order"},
    put_in_time("1"): {"unparseable"},
}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(some_bars(), forms(), st.one_of(st.none(), st.integers(30, 900)), st.data())
def test_of_damaged_rows_exactly_those_are_in_the_quarantine(bars, form, block_bytes, data):
    seen, lines, good, bad = set(), [], [], []
    for number, bar in enumerate(bars, start=1 + form.header):
        fields = form.line(bar)
        damage = data.draw(st.one_of(st.none(), st.sampled_from(list(DAMAGES))))
        is_first = bar[1] not in seen
        if damage is None or (DAMAGES[damage] == {"out_of_order"} and is_first):
            seen.add(bar[1])
            good.append(bar)
        else:
            fields = damage(fields, data.draw(st.integers(0, len(fields) - 1)), form)
            bad.append((number, DAMAGES[damage]))
        parts = [field if isinstance(field, bytes) else field.encode() for field in fields]
        lines.append(form.delimiter.encode().join(parts))
    assume(good)
    assume(form.header or b"\0" not in lines[0])  # that is no text, and refused as a whole
    with tempfile.TemporaryDirectory() as folder:
        read = form.prepare(lines, folder, block_bytes, max_bad_fraction=1.0)
        assert contents(read) == in_bars_order(good)
        found = [(row.line, {row.reason}) for row in iter_bad_rows(read.path)]
        assert found == bad


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(some_bars(), forms(), st.integers(30, 900), st.booleans(), st.data())
def test_bytes_damaged_anywhere_give_bars_or_an_error_whatever_the_block_size(
    bars, form, block_bytes, sort, data
):
    lines = [form.delimiter.join(form.line(bar)).encode() for bar in bars]
    text = bytearray(form.end.encode().join(lines))
    for _ in range(data.draw(st.integers(1, 8))):
        at, stop = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 12))
        text[at : at + stop] = data.draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from(
                    [
                        *(
                            b'"',
                            b"\n",
                            b"\r",
                            b"\r\n",
                            b"\0",
                            b",",
                            b";;",
                            b"inf",
                            b"1e400",
                            b"9" * 40,
                        ),
                        *(b"\xef\xbb\xbf", b'"a\nb"', b'"a\rb"', b"1.0000000000000000000001"),
                        b"\n\xef\xbb\xbf" + form.delimiter.join(form.columns).encode() + b"\r\n",
                    ]
                ),
                st.just(bytes(reversed(text[at : at + stop]))),
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        outcomes = []
        for size in (block_bytes, None):
            try:
                read = form.prepare(
                    bytes(text).split(form.end.encode()),
                    folder,
                    size,
                    max_bad_fraction=1.0,
                    sort=sort,
                )
            except InputError as error:
                outcomes.append(type(error))
                continue
            bad = [(row.line, row.text, row.reason) for row in iter_bad_rows(read.path)]
            outcomes.append((contents_of(read), bad, read.fingerprint))
        assert outcomes[0] == outcomes[1]


def contents_of(bars):
    rows = bars.read(0, len(bars))
    return {name: values.tobytes() for name, values in rows.items()}, bars.symbols
