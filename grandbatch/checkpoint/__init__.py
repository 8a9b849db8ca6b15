"""Checkpoints: one file each, whole or absent, checked before use, never executed.

| module | |
|---|---|
| `manager` | checkpoints of one training: saved, pruned, listed, loaded |
| `shelves` | where they lie: a folder, or an object store |
| `encoding` | the bytes of one |
| `payload` | what a payload may hold: looked at before anything is made of it |
"""

from grandbatch.checkpoint.encoding import FORMAT, MAGIC
from grandbatch.checkpoint.manager import (
    Checkpoint,
    CheckpointInfo,
    CheckpointManager,
    read_checkpoint,
)
from grandbatch.checkpoint.shelves import is_shelf, require

__all__ = [
    "FORMAT",
    "MAGIC",
    "Checkpoint",
    "CheckpointInfo",
    "CheckpointManager",
    "is_shelf",
    "read_checkpoint",
    "require",
]
