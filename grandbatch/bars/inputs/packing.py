"""Packed text: how a file is packed, what is in it, and reading that as a stream."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from grandbatch.bars.inputs.opening import open_raw
from grandbatch.errors import InputError
from grandbatch.files.whole import written_aside

PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
"""What a suffix says of how text is packed."""

TEXT_SUFFIXES = (".csv", ".txt", ".tsv")
SUFFIXES = (
    *TEXT_SUFFIXES,
    *(f"{text}{packing}" for text in TEXT_SUFFIXES for packing in PACKINGS),
    ".zip",
    ".parquet",
    ".pq",
)
"""Files of a folder that end so are read."""

_STEP_BYTES = 1024 * 1024


def has_known_form(name: str) -> bool:
    """Whether a file of a folder is read, by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def members_of(location: str) -> tuple[list[str], list[str]]:
    """Names of the texts in a .zip file, sorted, and of the other files in it.

    Where there are ``.csv``, other texts are descriptions of them.

    Raises
    ------
    InputError
        If it is no .zip file, or has no text.
    """
    with _plain_errors(location, "zip"), _open_zip(location) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    seen = sorted(name for name in names if not _is_hidden(name))
    for suffixes in (".csv", TEXT_SUFFIXES):
        texts = [name for name in seen if name.lower().endswith(suffixes)]
        if texts:
            return texts, [name for name in seen if name not in texts]
    raise InputError(
        f"{location}: no file in it ends in {', '.join(TEXT_SUFFIXES)} "
        f"(it holds {', '.join(seen[:5]) or 'nothing'}); unpack it first"
    )


def _is_hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or any(part.startswith(".") for part in name.split("/"))


@contextmanager
def open_text(
    location: str, kind: str, member: str = "", encoding: str | None = None
) -> Iterator[BinaryIO]:
    """Open a file's text, unpacked and in UTF-8, to be read once from its start.

    Bytes that are none of the encoding stay as they are, and are no UTF-8.

    Parameters
    ----------
    location : str
        Path or URL.
    kind : str
        How it is packed: a value of `PACKINGS`; anything else is plain.
    member : str
        Which of the files in a .zip.
    encoding : str, optional
        How it is written; UTF-8 by default.

    Raises
    ------
    InputError
        While it is read, if it is damaged or cut off, or isn't of the encoding at all.
    """
    with _plain_errors(location, kind), _open_packed(location, kind, member) as text:
        if is_utf8(encoding):
            yield text
            return
        assert encoding is not None
        recoded = codecs.EncodedFile(text, "utf-8", encoding, "surrogateescape")
        try:
            yield cast(BinaryIO, recoded)
        except UnicodeError as error:
            raise InputError(f"{location}: not {encoding} text ({error}); mend that") from None


@contextmanager
def _open_packed(location: str, kind: str, member: str) -> Iterator[BinaryIO]:
    if kind == "zip":
        with _open_zip(location) as archive, archive.open(member) as text:
            yield cast(BinaryIO, text)
        return
    with open_raw(location, 4 * _STEP_BYTES) as raw:
        if kind == "gzip":
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        elif kind == "bz2":
            yield cast(BinaryIO, io.BufferedReader(_Streams(raw, bz2.BZ2Decompressor)))
        elif kind == "xz":
            yield cast(BinaryIO, io.BufferedReader(_Streams(raw, lzma.LZMADecompressor)))
        elif kind == "zstd":
            import pyarrow as pa

            yield pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        else:
            yield raw


class _Streams(io.RawIOBase):
    """Streams of .bz2 or .xz, one behind the other, with zeros between them.

    Python's own readers take what can't be unpacked behind the first of them for the end.
    """

    def __init__(
        self,
        packed: BinaryIO,
        begin: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
    ) -> None:
        self._packed, self._begin = packed, begin
        self._stream = begin()

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        data = b""
        while not data:
            rest = b""
            if self._stream.eof:
                rest = self._stream.unused_data.lstrip(b"\0")
                while not rest:
                    more = self._packed.read(_STEP_BYTES)
                    if not more:
                        return 0
                    rest = more.lstrip(b"\0")
                self._stream = self._begin()
            elif self._stream.needs_input:
                rest = self._packed.read(_STEP_BYTES)
                if not rest:
                    raise EOFError("it ends in the middle")
            data = self._stream.decompress(rest, len(room))
        room[: len(data)] = data
        return len(data)


@contextmanager
def _open_zip(location: str) -> Iterator[zipfile.ZipFile]:
    with (
        open_raw(location) as raw,
        io.BufferedReader(cast(io.RawIOBase, raw)) as file,
        zipfile.ZipFile(file) as archive,
    ):
        yield archive


@contextmanager
def _plain_errors(location: str, kind: str) -> Iterator[None]:
    """Say what is wrong with a packed file as what is wrong with an input."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise _damaged(location, kind, error) from None
    except (RuntimeError, NotImplementedError) as error:  # a password, a rare compression
        if kind != "zip":
            raise
        raise InputError(f"{location}: can't be unpacked ({error}); unpack it first") from None
    except OSError as error:
        # the system's errors have a number, those of what is unpacked have none
        if kind not in PACKINGS.values() or error.errno is not None:
            raise
        raise _damaged(location, kind, error) from None


def _damaged(location: str, kind: str, error: Exception) -> InputError:
    suffix = next(suffix for suffix, packing in PACKINGS.items() if packing == kind)
    return InputError(f"{location}: not a whole {suffix} file ({error}); copy it again")


def is_utf8(encoding: str | None) -> bool:
    """Whether text of an encoding is read as it is."""
    return encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def unpack(location: str, kind: str, member: str, encoding: str | None, target: Path) -> None:
    """Write a file's text, unpacked and in UTF-8, in bounded memory.

    Raises
    ------
    InputError
        As `open_text`, or if it is empty.
    """
    n_bytes = 0
    with (
        open_text(location, kind, member, encoding) as source,
        written_aside(target, shared=True) as aside,
        aside.open("wb") as out,
    ):
        while data := source.read(_STEP_BYTES):
            n_bytes += out.write(data)
    if not n_bytes:
        inside = f" ({member})" if member else ""
        raise InputError(f"{location}{inside}: the file is empty; it needs a header and bars")


def likely_encodings(sample: bytes) -> Sequence[str]:
    """Return encodings in which the first bytes of a text make sense, likely ones first.

    By the bytes alone: several may be left, of which one makes sense of the header.
    """
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ["utf-16"]
    half = sample[: len(sample) // 2 * 2]
    for encoding, zeros in (("utf-16-le", half[1::2]), ("utf-16-be", half[::2])):
        if zeros and zeros.count(0) > len(zeros) // 2:
            return [encoding]
    if b"\0" in sample:
        return []
    return [name for name in _CANDIDATES if _makes_sense(sample, name)]


_CANDIDATES = ("gbk", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")
_SCRIPTS = {"cp1251": ((0x400, 0x45F),), "cp1252": ((0xC0, 0x17F),)}
_CYRILLIC = re.compile(r"[\u0400-\u045f]+")
_MIXED_WORD = re.compile(r"(?<=[a-zA-Z])[\u0400-\u045f]+|[\u0400-\u045f]+(?=[a-zA-Z])")
"""Cyrillic letters in a word of Latin ones: these are another encoding's."""
_EAST_ASIAN = ((0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E))


def _makes_sense(sample: bytes, encoding: str) -> bool:
    """Whether most letters beyond ASCII are of the scripts that an encoding is for."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(sample)  # a letter may be cut at the end
    except UnicodeError:
        return False
    letters = [ord(letter) for letter in text if ord(letter) > 127 and letter.isalpha()]
    if encoding == "cp1251" and 2 * len(_MIXED_WORD.findall(text)) > len(_CYRILLIC.findall(text)):
        return False
    scripts = _SCRIPTS.get(encoding, _EAST_ASIAN)
    fitting = sum(any(low <= letter <= high for low, high in scripts) for letter in letters)
    return bool(letters) and fitting > 0.8 * len(letters)


def stem_of(path: str | os.PathLike[str]) -> str:
    """Return the base name without the suffixes that say how a file is written."""
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem
