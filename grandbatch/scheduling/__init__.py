"""Run Dask tasks on threads, in this thread, or on a cluster, and hear of each as it ends.

Covers where tasks run and in what number, and what becomes of them when workers die, run out of
memory, or stop. Does not cover what tasks do, or what they need.
"""

from grandbatch.scheduling.opening import open_schedule
from grandbatch.scheduling.origin import Origin, bit_versions, look_at
from grandbatch.scheduling.schedule import Schedule, available_cores

__all__ = ["Origin", "Schedule", "available_cores", "bit_versions", "look_at", "open_schedule"]
