"""Checkpoints: one file each, whole or absent, checked before use, never executed."""

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
