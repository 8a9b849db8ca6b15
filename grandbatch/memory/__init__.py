"""Memory: its limits, its use, and what a run does as it runs short.

| module | |
|---|---|
| `limits` | how much there is: every limit in force |
| `usage` | how much is used, here and on GPUs |
| `monitor` | `MemoryMonitor`: use against limit, sampled; the levels |
| `records` | what a training tells of its memory: JSON lines, Prometheus |
| `processes` | the processes of a training |
| `cluster` | workers of a Dask cluster |
| `costs` | what processes hold before they do anything |
| `allocator` | when freed memory goes back to the system |

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
