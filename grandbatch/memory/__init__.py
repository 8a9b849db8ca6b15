"""Memory: its limits, its use, and what a run does as it runs short.

Covers this process and those below it, and the workers of a Dask cluster. Limits are read anew
each time, never kept. Memory of GPUs is told, not limited: PyTorch raises there by itself.
"""

from grandbatch.memory.limits import MemoryLimit, memory_limit
from grandbatch.memory.monitor import Level, MemoryMonitor, Sample
from grandbatch.memory.usage import (
    DeviceMemory,
    MemoryUsage,
    own_bytes,
    peak_bytes,
    process_tree_bytes,
    read_usage,
)

__all__ = [
    "DeviceMemory",
    "Level",
    "MemoryLimit",
    "MemoryMonitor",
    "MemoryUsage",
    "Sample",
    "memory_limit",
    "own_bytes",
    "peak_bytes",
    "process_tree_bytes",
    "read_usage",
]
