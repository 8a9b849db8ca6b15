"""Packed text is read like plain text; what lies beside it and isn't read is named."""

import bz2
import gzip
import io
import logging
import lzma
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from grandbatch.bars import BarRules, input_digests, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.builder.estimate import estimate_build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
HEADER = "timestamp,open,high,low,close,volume"


def body(start, stop):
    rows = (f"2024-01-01 {i // 60:02d}:{i % 60:02d},10,12,9,11,{i}" for i in range(start, stop))
    return "\n".join([HEADER, *rows, ""]).encode()


def zipped(method=zipfile.ZIP_DEFLATED, **members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", ".").replace("_MAC", "__MAC"), data)
    return out.getvalue()


def zstd(data):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(data)
    return out.getvalue().to_pybytes()


PACK = {
    "csv": bytes,
    "csv.gz": gzip.compress,
    "csv.bz2": bz2.compress,
    "csv.xz": lzma.compress,
    "csv.zst": zstd,
    "zip": lambda data: zipped(bars__csv=data),
    "csv.zip": lambda data: zipped(bars__csv=data),
}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def prepare(inputs, tmp_path, block_bytes=None, **rules):
    return prepare_bars(inputs, tmp_path / "cache", BarRules(**rules), HERE, block_bytes)


def volumes(bars):
    return bars.read(0, bars.n_rows, ("volume",))["volume"].tolist()


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("block_bytes", [None, 777])
def test_a_packed_file_has_the_bars_of_the_plain_one(tmp_path, suffix, block_bytes):
    path = write(tmp_path / f"x.{suffix.upper()}", PACK[suffix](body(0, 200)))
    assert volumes(prepare(path, tmp_path, block_bytes)) == list(range(200))


@pytest.mark.parametrize("suffix", [name for name in PACK if name != "csv"])
def test_a_packed_file_cut_off_or_damaged_is_one_line(tmp_path, suffix):
    whole = PACK[suffix](body(0, 500))
    for name, data in (("cut", whole[:-30]), ("none", body(0, 5))):
        path = write(tmp_path / f"{name}.{suffix}", data)
        with pytest.raises(InputError, match=rf"{name}\.{suffix}: not a whole \.\w+ file"):
            prepare(path, tmp_path)


def test_a_folder_of_all_packings_is_read_in_order_of_names_and_the_rest_is_named(tmp_path, caplog):
    folder = tmp_path / "in"
    for i, (suffix, pack) in enumerate(PACK.items()):
        write(folder / f"{i}.{suffix}", pack(body(60 * i, 60 * i + 60)))
    write(folder / "sub" / "more.csv", body(0, 9))
    write(folder / "store.zarr" / "zarr.json", b"{}")
    for other in ("a.7z", "notes.md", "x.tar.gz", ".hidden", "_SUCCESS"):
        write(folder / other, b"x")
    with caplog.at_level(logging.WARNING, "grandbatch"):
        bars = prepare(folder, tmp_path)
    assert volumes(bars) == list(range(60 * len(PACK)))
    [told] = [record.message for record in caplog.records]
    assert told.endswith(": a.7z, notes.md, x.tar.gz, sub/")


def test_a_zip_is_read_by_the_names_of_its_csv_members(tmp_path, caplog):
    data = zipped(
        b__csv=body(60, 120),
        a__csv=body(0, 60),
        readme__txt=b"no bars",
        **{"_MACOSX/a__csv": b"x"},
    )
    path = write(tmp_path / "x.zip", data)
    with caplog.at_level(logging.WARNING, "grandbatch"):
        bars = prepare(path, tmp_path)
    assert volumes(bars) == list(range(120))
    assert "readme.txt" in caplog.text
    assert [entry["name"] for entry in bars.source] == ["x.zip/a.csv", "x.zip/b.csv"]
    assert prepare(path, tmp_path, symbol_from="filename").symbols == ("a", "b")
    # known from now on: the file isn't read again, and digests are those of the .zip
    assert input_digests(path, tmp_path / "cache") == bars.source


def test_a_zip_of_texts_without_csv_is_read_and_one_of_nothing_is_an_error(tmp_path):
    path = write(tmp_path / "x.zip", zipped(a__txt=body(0, 9), b__pdf=b"x"))
    assert volumes(prepare(path, tmp_path)) == list(range(9))
    path = write(tmp_path / "y.zip", zipped(b__pdf=b"x"))
    with pytest.raises(InputError, match=r"no file in it ends in \.csv.*it holds b\.pdf"):
        prepare(path, tmp_path)


def test_bad_rows_of_a_zip_are_named_by_member_and_line(tmp_path):
    data = zipped(a__csv=body(0, 60) + b"rubbish\n", b__csv=body(60, 120))
    bars = prepare(write(tmp_path / "x.zip", data), tmp_path, max_bad_fraction=0.1)
    assert [(bad.file, bad.line) for bad in iter_bad_rows(bars.path)] == [("x.zip/a.csv", 62)]


def test_packed_files_at_urls_are_read_too(tmp_path):
    system = fsspec.filesystem("memory")
    for i, suffix in enumerate(("zip", "csv.zst", "csv.bz2")):
        system.pipe(f"/packed/{i}.{suffix}", PACK[suffix](body(60 * i, 60 * i + 60)))
    try:
        assert volumes(prepare("memory://packed", tmp_path)) == list(range(180))
    finally:
        system.rm("/packed", recursive=True)


@pytest.mark.parametrize("encoding", [None, "utf-16"])
@pytest.mark.parametrize("suffix", PACK)
def test_a_plan_counts_the_lines_of_packed_files(tmp_path, suffix, encoding):
    text = body(0, 300).decode().encode(encoding or "utf-8")
    path = write(tmp_path / f"x.{suffix}", PACK[suffix](text))
    rules = BarRules(encoding=encoding)

    settings = make_settings("strategic", None, None, "windows", None, "auto", None)
    target = Request.of(path, tmp_path / "s.zarr", settings, rules, tmp_path / "cache")
    assert estimate_build(target, exact_bytes=0).plan.n_rows == 300


def test_a_changed_zip_is_another_input(tmp_path):
    path = write(tmp_path / "x.zip", zipped(a__csv=body(0, 60)))
    [before] = resolve_inputs(path)
    assert before.is_unchanged()
    write(path, zipped(a__csv=body(0, 60), b__csv=body(60, 99)))
    assert not before.is_unchanged()
    assert len(resolve_inputs(path)) == 2
    np.testing.assert_array_equal(volumes(prepare(path, tmp_path)), np.arange(99))


def test_a_folder_of_folders_names_those_to_name(tmp_path):
    for symbol in ("AAPL", "MSFT"):
        (tmp_path / symbol).mkdir()
        (tmp_path / symbol / "2024.csv").write_text("x")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"name folders in it that hold some: AAPL/, MSFT/$"):
        resolve_inputs(tmp_path)


def without_header(data):
    return data.partition(b"\n")[2]


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.xz", "csv.zst"])
@pytest.mark.parametrize("between", [b"", b"\xef\xbb\xbf"])
def test_packed_files_joined_to_one_are_read_to_the_end(tmp_path, suffix, between):
    pack = PACK[suffix]
    data = pack(between + body(0, 40)) + pack(b"") + pack(between + without_header(body(40, 90)))
    assert volumes(prepare(write(tmp_path / f"x.{suffix}", data), tmp_path, 777)) == [*range(90)]


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.xz"])
def test_zeros_behind_what_is_packed_are_none_of_it(tmp_path, suffix):
    pack, zeros = PACK[suffix], bytes(8)
    data = pack(body(0, 40)) + zeros + pack(without_header(body(40, 90))) + zeros
    assert volumes(prepare(write(tmp_path / f"x.{suffix}", data), tmp_path)) == [*range(90)]


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.xz", "csv.zst"])
@pytest.mark.parametrize("damage", ["hit", "cut"])
def test_a_second_packed_file_that_is_damaged_is_no_end_of_the_first(tmp_path, suffix, damage):
    pack = PACK[suffix]
    second = pack(without_header(body(40, 90)))
    second = second[:-9] if damage == "cut" else b"?" + second[1:]
    path = write(tmp_path / f"x.{suffix}", pack(body(0, 40)) + second)
    with pytest.raises(InputError, match=f"not a whole .{suffix[4:]} file"):
        prepare(path, tmp_path)


def test_members_of_a_zip_have_columns_in_orders_of_their_own(tmp_path):
    lines = [line.split(b",") for line in body(40, 90).splitlines()]
    turned = b"\n".join(b",".join(reversed(fields)) for fields in lines)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("bars/2024-02/b.csv", turned)
        archive.writestr("bars/2024-01/a.csv", body(0, 40))
        archive.writestr("bars/2024-01/", "")
    assert volumes(prepare(tmp_path / "x.zip", tmp_path)) == [*range(90)]


def test_a_zip_that_is_empty_locked_or_of_other_files_says_so(tmp_path):
    inner = zipped(a__csv=body(0, 40))
    for name, data, what in (
        ("empty", zipped(), "holds nothing"),
        ("nested", zipped(b__zip=inner), "holds b.zip"),
        ("parquet", zipped(c__parquet=b"PAR1"), "holds c.parquet"),
        ("packed", zipped(d__csv__gz=gzip.compress(body(0, 40))), "holds d.csv.gz"),
        ("locked", locked(inner), "password"),
        ("void", zipped(a__csv=body(0, 40), b__csv=b""), r"\(b.csv\): the file is empty"),
    ):
        with pytest.raises(InputError, match=what):
            prepare(write(tmp_path / f"{name}.zip", data), tmp_path)


def locked(archive):
    """A .zip that says of its members that they are encrypted."""
    data = bytearray(archive)
    data[data.index(b"PK\3\4") + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)
