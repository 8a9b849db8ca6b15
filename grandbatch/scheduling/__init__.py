"""Run Dask tasks on threads, in this thread, or on a cluster, and hear of each as it ends.

| module | |
|---|---|
| `schedule` | `Schedule`: where tasks run, as a value |
| `opening` | the schedule that a person asks for, opened and closed |
| `cluster` | a graph on a cluster: in waves, results as they come, no hang |
| `origin` | each task refuses a process of another version, or on other disks |
| `watch` | who died of what, and whether anything moves |

Covers where tasks run and in what number, and what becomes of them when workers die, run out of
memory, or stop. Does not cover what tasks do, or what they need.
"""

from grandbatch.scheduling.opening import open_schedule
from grandbatch.scheduling.origin import (
    Access,
    Origin,
    bit_versions,
    look_at,
    problems_of,
    unreachable,
)
from grandbatch.scheduling.schedule import Schedule

__all__ = [
    "Access",
    "Origin",
    "Schedule",
    "bit_versions",
    "look_at",
    "open_schedule",
    "problems_of",
    "unreachable",
]
