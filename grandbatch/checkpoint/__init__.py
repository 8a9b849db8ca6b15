"""Checkpoints: one file each, whole or absent, checked before use, never executed.

| module | |
|---|---|
| `manager` | checkpoints of one training: saved, pruned, listed, loaded |
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

__all__ = [
    "FORMAT",
    "MAGIC",
    "Checkpoint",
    "CheckpointInfo",
    "CheckpointManager",
    "read_checkpoint",
]
