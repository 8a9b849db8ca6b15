"""Batches of a store, shuffled, sharded and resumable, at memory speed.

A batch on its way from the order to the trainer passes these, each handing on to the next::

    EpochOrder ─ deal ─▶ Deal ─▶ Share         which windows, for which rank       (order)
    Share ─ BlockFeed ─▶ ShuffleBlock          its chunks decoded into a Table     (blocks, table)
    ShuffleBlock ─ WindowStream ─▶ Slab        about 1,024 windows, gathered       (windows, slabs)
    Slab ─ every_batch ─▶ MatrixBatch          cut where the batch size says       (batches)
    MatrixBatch ─ deliver ─▶ Handover          how far the deal was handed over    (standing)

| module | |
|---|---|
| `loader` | `SlidingWindowDataLoader`: the public class |
| `checks` | what is given, checked against the store |
| `subset` | which windows take part |
| `weighing` | how often they are to come |
| `context` | windows of coarser bars that come with them |
| `buffers` | the memory that loading takes, planned and kept from epoch to epoch |
| `blocks` | decodes the chunks of shuffle blocks ahead, on threads |
| `table` | decoded chunks in slots, and the windows cut from them |
| `rows` | feature rows in memory, and windows copied out of them |
| `device` | the same rows on a device, where windows are cut |
| `labels` | per-window values, where a gather finds them |
| `slab_labels` | those of gathered windows, looked up when they are first asked for |
| `windows` | a rank's windows as one stream, gathered into slabs |
| `slabs` | memory for gathered windows |
| `batches` | from slabs to batches, and what was handed over |
| `stream` | `DataStreamer`: batches prepared ahead, in one thread |
| `standing` | where a loader stands, and the state that says so |
"""

from grandbatch.loader.loader import SlidingWindowDataLoader
from grandbatch.loader.stream import DataStreamer

__all__ = ["DataStreamer", "SlidingWindowDataLoader"]
