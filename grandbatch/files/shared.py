"""Files that tasks have told of, seen by the process that sent the tasks.

A task tells what it has written, and may have written it elsewhere: on a worker's own disk.
"""

from __future__ import annotations

from pathlib import Path

from grandbatch.errors import StoreError


def see(path: Path, n_bytes: int | None = None) -> None:
    """Look at a file that a task has told of.

    Raises
    ------
    StoreError
        If it isn't here, or hasn't the bytes it should have.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise not_here(path, f"can't be seen ({error.strerror})") from None
    if n_bytes is not None and found != n_bytes:
        raise not_here(path, f"has {found:,} bytes instead of {n_bytes:,}")


def not_here(path: Path, what: str) -> StoreError:
    """Say that a file isn't where a task has written it."""
    return StoreError(
        f"{path} {what}, though the task that wrote it has ended: its worker may write to a disk "
        "of its own. Nothing is published; see to it that all workers share the disk, and run the "
        "same command again: what is whole is kept"
    )
