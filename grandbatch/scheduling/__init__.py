"""Run Dask tasks on threads, in this thread, or on a cluster, and hear of each as it ends.

| module | |
|---|---|
| `schedule` | `Schedule`: where tasks run, as a value |
| `opening` | the schedule that a person asks for, opened and closed |
| `cluster` | a graph on a cluster: in waves, results as they come, no hang |
| `jobs` | graphs of jobs, wave by wave |
| `admission` | which workers may take part |
| `turns` | more tasks under way than threads, where they wait |
| `origin` | each task refuses a process of another version, or on other disks |
| `watch` | who died of what, and whether anything moves |

Covers where tasks run and in what number, and what becomes of them when workers die, run out of
memory, or stop. Does not cover what tasks do, or what they need.
"""

from grandbatch.scheduling.admission import FIRST_PATIENCE, admit, admit_readers, check_version
from grandbatch.scheduling.cluster import Wave
from grandbatch.scheduling.jobs import WAVE_JOBS, call_waves, fresh, fuller_waves, waves_of
from grandbatch.scheduling.opening import open_schedule
from grandbatch.scheduling.origin import Access, bit_versions, problems_of
from grandbatch.scheduling.schedule import Schedule
from grandbatch.scheduling.turns import FAR_TURNS

__all__ = [
    "FAR_TURNS",
    "FIRST_PATIENCE",
    "WAVE_JOBS",
    "Access",
    "Schedule",
    "Wave",
    "admit",
    "admit_readers",
    "bit_versions",
    "call_waves",
    "check_version",
    "fresh",
    "fuller_waves",
    "open_schedule",
    "problems_of",
    "waves_of",
]
