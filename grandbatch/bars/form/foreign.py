"""Files that are no CSV, by their first bytes."""

from __future__ import annotations

import codecs

from grandbatch.errors import InputError

_SIGNATURES = (
    (b"\x1f\x8b", "packed text; end its name with .csv.gz"),
    (b"BZh", "packed text; end its name with .csv.bz2"),
    (b"\xfd7zXZ\0", "packed text; end its name with .csv.xz"),
    (b"\x28\xb5\x2f\xfd", "packed text; end its name with .csv.zst"),
    (b"PAR1", "Parquet; end its name with .parquet"),
    (b"PK\x03\x04", "an archive or a spreadsheet; end its name with .zip, or save it as CSV"),
    (b"ARROW1", "Feather; save it as Parquet"),
    (b"\x89HDF", "HDF5; save it as Parquet"),
    (b"SQLite format 3", "a database; save its table as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "an archive; unpack it first"),
    (b"Rar!", "an archive; unpack it first"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet; save it as CSV"),
    (b"<!doctype", "a web page; fetch the file again"),
    (b"<html", "a web page; fetch the file again"),
    (b"<?xml", "XML; save it as CSV"),
    (b"{", "JSON; save it as CSV"),
    (b"[", "JSON; save it as CSV"),
)
"""How files begin that are no CSV, whatever their names say."""
_TAR_PLACE = 257
"""Where a tar archive says that it is one."""


def refuse_other_forms(sample: bytes, name: str) -> None:
    """Refuse what begins as another form of file does.

    Raises
    ------
    InputError
        It says which form it is, and what to do.
    """
    start = sample[:99].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for signature, what in _SIGNATURES:
        if start.startswith(signature.lower()):
            raise InputError(f"{name}: it is no CSV but {what}")
    if sample[_TAR_PLACE:].startswith(b"ustar"):
        raise InputError(f"{name}: it is no CSV but an archive; unpack it first")
