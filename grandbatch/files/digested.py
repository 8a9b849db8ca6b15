"""JSON that carries the sha256 of what it says: a flipped byte is found, or changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grandbatch.files.locations import is_remote
from grandbatch.files.ordinary import overwrite
from grandbatch.files.verbs import objects_of

KEY = "sha256"


def dump(value: Mapping[str, Any]) -> bytes:
    """Write an object as JSON, with its sha256."""
    return json.dumps({**value, KEY: content_sha256(value)}).encode()


def load(raw: bytes) -> dict[str, Any]:
    """Read what `dump` wrote, its sha256 included.

    Raises
    ------
    ValueError
        If it is no such object, or not what was written.
    """
    value = parse(raw)
    check(value)
    return value


def parse(raw: bytes) -> dict[str, Any]:
    """Read a JSON object, checked or not.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        value = json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 (of a file's content)
    return value


def check(value: Mapping[str, Any]) -> None:
    """Raise ValueError where an object's sha256 is not that of the rest of it."""
    if value.get(KEY) != content_sha256({key: value[key] for key in value if key != KEY}):
        raise ValueError("its sha256 is not that of its content")


def content_sha256(value: Mapping[str, Any]) -> str:
    """Return the sha256 of what an object says, however its JSON is spaced, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def note(path: Path, value: Mapping[str, Any]) -> None:
    """Write what only saves work, where it can be written; a link that stands there goes.

    In place: what is half-written has no such digest, and what is written aside stays after a kill.
    """
    with suppress(OSError):
        if is_remote(path):
            objects_of(path).write("", dump(value))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        overwrite(path, dump(value))
