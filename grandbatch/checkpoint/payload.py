"""What a payload may hold: looked at before anything is made of it, and once it is.

A payload is what `torch.save` writes of tensors and plain values: a zip of a pickle and the bytes
of each storage. Torch executes none of it, but a few bytes could still ask for any amount of memory
or time: by packed records, by calls that make large objects, or by values that are named again and
again. Covers sizes and shapes. Does not cover digests, or what the values mean.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from typing import Any

MAX_PAYLOAD_BYTES = 2**34
"""Of a trainer's state: larger ones are neither written nor read."""

_MAX_DEPTH = 500

_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BINUNICODE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINPUT", "LONG_BINPUT"),
        *("BINGET", "LONG_BINGET", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "APPEND", "APPENDS"),
        *("SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    }
)
_ENCODE = "_codecs encode"
_GLOBALS = re.compile(
    r"collections OrderedDict|_codecs encode|torch\._utils _rebuild_(tensor_v[23]|parameter)|"
    r"torch \w+Storage|torch\.storage UntypedStorage|"
    r"torch (float|bfloat|uint|int|complex|bool)\w*"
)


def check_archive(payload: bytes) -> None:
    """See that reading a payload takes no more than its own size.

    Raises
    ------
    ValueError, zipfile.BadZipFile, EOFError
        If it may.
    """
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its records are packed")
        if sum(entry.file_size for entry in entries) > len(payload):
            raise ValueError("its records are larger than itself")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} pickles")
        _check_pickle(archive.read(pickles[0]))


def _check_pickle(data: bytes) -> None:
    """See that a pickle makes tensors and plain values only, none much larger than it is."""
    encodes: set[int] = set()
    short: set[int] = set()
    last: tuple[str, Any] = ("", None)
    calls_encode = False
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name.removeprefix("LONG_")
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle has the opcode {opcode.name}")
        if name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"its pickle names {argument}")
        if name == "BINPUT":
            if calls_encode:
                encodes.add(argument)
            elif last[0] == "BINUNICODE" and len(last[1]) < 2:
                short.add(argument)
            continue
        # bytes are a text and a call: a text from elsewhere would make many of one
        if calls_encode and name != "BINUNICODE" and not (name == "BINGET" and argument in short):
            raise ValueError("its pickle encodes a text that stands elsewhere")
        calls_encode = (name, argument) == ("GLOBAL", _ENCODE) or (
            name == "BINGET" and argument in encodes
        )
        last = name, argument


def check_state(state: Any, n_bytes: int) -> None:
    """See that no tensor is larger than its storage, and nothing is named again without end.

    Parameters
    ----------
    state
        What was read.
    n_bytes : int
        Of the payload that it came from.

    Raises
    ------
    ValueError
        If so.
    """
    import torch

    left: list[tuple[Any, int]] = [(state, 0)]
    n_seen = 0
    while left:
        value, depth = left.pop()
        n_seen += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} times")
        if n_seen > n_bytes:
            raise ValueError("it names the same values again and again")
        if isinstance(value, torch.Tensor):
            problem = tensor_problem(value)
            if problem is not None:
                raise ValueError(f"it holds a tensor {problem}")
        elif isinstance(value, dict):
            left += ((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple):
            left += ((item, depth + 1) for item in value)


def tensor_problem(tensor: Any) -> str | None:
    """Say why a tensor is no plain block of numbers on the CPU or a device; None if it is."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        return "that is sparse, quantized or without values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "that is expanded: larger than its storage"
    return None
