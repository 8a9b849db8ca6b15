"""The bytes of one checkpoint.

A file is a fixed preamble (magic, length and sha256 of the header), a JSON header that can be read
without torch, and a payload of the trainer's state:

========  =================  =============================================================
bytes     what               why
========  =================  =============================================================
8         magic              a foreign file is told from a damaged one
8         header length      little-endian
32        header sha256      covers step, store, position, metrics and the payload's digest
..        header             JSON
..        payload            `torch.save`, read back with `weights_only=True`
========  =================  =============================================================

torch.save alone lets every bit flip through, hence the digests. Covers bytes and their checks.
Does not cover directories, or what the states mean.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from grandbatch.checkpoint.payload import (
    MAX_PAYLOAD_BYTES,
    check_archive,
    check_state,
    tensor_problem,
)
from grandbatch.errors import CheckpointError, DamagedCheckpointError, UsageError
from grandbatch.values.texts import read_json

FORMAT = 1
MAGIC = b"GBCKPT1\n"
NAME = re.compile(r"step-([0-9]{9,})\.ckpt")
_PREAMBLE = struct.Struct("<8sQ32s")
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_SCALARS = (bool, int, float, str, bytes, type(None))


def encode(
    step: int,
    content_id: str,
    trainer_state: Mapping[str, Any],
    loader_state: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> bytes:
    """Return the bytes of a checkpoint; the parameters are those of `CheckpointManager.save`.

    Raises
    ------
    UsageError
        If a state holds something that could not be read back.
    """
    import torch

    state = dict(trainer_state)
    check_plain(state, "trainer_state")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"trainer_state takes {len(payload):,} bytes, above the {MAX_PAYLOAD_BYTES:,} that a "
            "checkpoint may have; leave out what can be made anew"
        )
    header = {
        "format": FORMAT,
        "step": step,
        "content_id": content_id,
        "position": _position_of(loader_state),
        "loader_state": dict(loader_state),
        "metrics": _metrics_to_json(metrics),
        "payload_bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    try:
        text = json.dumps(header, allow_nan=False)
        read = read_json(text)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"loader_state must hold JSON types only ({error}); got {loader_state!r}"
        ) from None
    if read != header:
        raise UsageError(
            "loader_state changes on its way through JSON (a tuple, or a key that is no string); "
            f"give lists and string keys, got {loader_state!r}"
        )
    head = text.encode()
    return _PREAMBLE.pack(MAGIC, len(head), hashlib.sha256(head).digest()) + head + payload


def check_plain(value: Any, where: str, *, lazy: bool = False) -> None:
    """Refuse what `torch.load(weights_only=True)` would refuse, while the run can still be mended.

    `lazy` lets parameters pass that get their shape with the first batch.

    Raises
    ------
    UsageError
        Naming the place of the value.
    """
    import torch

    if type(value) is bytes and not value:
        raise UsageError(f"{where} is b'', which torch can't read back; use None")
    if type(value) in _SCALARS:
        return
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        problem = tensor_problem(value)
        if problem is not None:
            raise UsageError(
                f"{where} is a tensor {problem}, and could not be read back; give a plain one, by "
                ".contiguous(), .to_dense() or .dequantize()"
            )
        return
    if lazy and torch.nn.parameter.is_lazy(value):
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise UsageError(f"{where} has the key {key!r}; keys must be strings or ints")
            check_plain(item, f"{where}[{key!r}]", lazy=lazy)
    elif type(value) in (list, tuple):
        for place, item in enumerate(value):
            check_plain(item, f"{where}[{place}]", lazy=lazy)
    else:
        raise UsageError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a trainer's state "
            "must be tensors, numbers, strings, None, and dicts, lists and tuples of them"
        )


def _position_of(loader_state: Mapping[str, Any]) -> dict[str, int] | None:
    position = loader_state.get("position", loader_state)
    if isinstance(position, Mapping) and {"chunk_index", "offset"} <= position.keys():
        return {"chunk_index": position["chunk_index"], "offset": position["offset"]}
    return None


def _metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    # JSON has no NaN; "nan" and "inf" are what float() reads back.
    values = {name: float(value) for name, value in metrics.items()}
    return {name: v if math.isfinite(v) else str(v) for name, v in values.items()}


def metrics_from_json(metrics: Mapping[str, float | str]) -> dict[str, float]:
    """Read a header's metrics; "nan" and "inf" stand for what JSON can't say."""
    return {name: float(value) for name, value in metrics.items()}


def read_header(file: BinaryIO, path: Path, n_bytes: int) -> dict[str, Any]:
    """Read and check preamble and header of a file of so many bytes; leave it at the payload.

    Raises
    ------
    CheckpointError
        If the file is foreign, damaged, cut short, or of another format.
    """
    preamble = file.read(_PREAMBLE.size)
    if not preamble.startswith(MAGIC):
        raise DamagedCheckpointError(
            f"{path} is no grandbatch checkpoint, or its first bytes are damaged: "
            f"it starts with {preamble[:8]!r}, not {MAGIC!r}"
        )
    if len(preamble) < _PREAMBLE.size:
        raise DamagedCheckpointError(f"{path} is cut short: {n_bytes} bytes hold no header")
    _, head_bytes, digest = _PREAMBLE.unpack(preamble)
    if head_bytes > min(_MAX_HEADER_BYTES, n_bytes - _PREAMBLE.size):
        raise DamagedCheckpointError(
            f"{path} is damaged or cut short: a header of {head_bytes:,} bytes "
            f"does not fit in its {n_bytes:,} bytes"
        )
    head = file.read(head_bytes)
    if hashlib.sha256(head).digest() != digest:
        raise DamagedCheckpointError(f"{path} is damaged: its header does not match its checksum")
    header = _parse_header(head, path)
    if not 0 <= header["payload_bytes"] <= MAX_PAYLOAD_BYTES:
        raise DamagedCheckpointError(
            f"{path} holds {header['payload_bytes']:,} bytes of state, at most "
            f"{MAX_PAYLOAD_BYTES:,} are read"
        )
    expected = _PREAMBLE.size + head_bytes + header["payload_bytes"]
    if n_bytes != expected:
        raise DamagedCheckpointError(f"{path} has {n_bytes:,} bytes, written were {expected:,}")
    named = NAME.fullmatch(path.name)
    if named and int(named[1]) != header["step"]:
        raise DamagedCheckpointError(
            f"{path} holds step {header['step']}, not the step of its name"
        )
    return header


def _parse_header(head: bytes, path: Path) -> dict[str, Any]:
    wanted: dict[str, type | tuple[type, ...]] = {
        "step": int,
        "content_id": str,
        "position": (dict, type(None)),
        "loader_state": dict,
        "metrics": dict,
        "payload_bytes": int,
        "sha256": str,
    }
    try:
        header = read_json(head)
        version = header["format"]
        fits = version != FORMAT or all(isinstance(header[k], t) for k, t in wanted.items())
        if fits and version == FORMAT:
            metrics_from_json(header["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"{path} has a header that is no checkpoint's ({type(error).__name__}: {error})"
        ) from None
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}, this version of grandbatch reads {FORMAT}; "
            "use the version that wrote it, or start again with --no-resume"
        )
    if not fits:
        raise DamagedCheckpointError(
            f"{path} has a header whose fields are not of a checkpoint's types"
        )
    return dict(header)


def decode_payload(payload: bytes, path: Path) -> dict[str, Any]:
    """Read a trainer's state, tensors on the CPU. Nothing in it is executed.

    Raises
    ------
    CheckpointError
        If it holds anything but tensors and plain values.
    """
    import torch

    try:
        check_archive(payload)
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        check_state(state, len(payload))
    except Exception as error:
        raise DamagedCheckpointError(
            f"{path} holds something else than tensors and plain values, and was not executed "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error
    if not isinstance(state, dict):
        raise DamagedCheckpointError(
            f"{path} holds a {type(state).__name__}, not a trainer's state"
        )
    return state
