"""Chunks of arrays, and parts of them, read and checked.

| module | |
|---|---|
| `arrays` | `ArrayReader`: one array's chunks, each checked against the manifest |
| `arriving` | packed chunks, decoded while the rest of an answer comes |
| `ahead` | `ReadAhead`: many chunks by one request, where each would be one |
| `opened` | `OpenFiles`: the files they are in, kept open from one to the next |
| `together` | small chunks of one array, several by one call |
"""

from grandbatch.store.reading.ahead import ReadAhead
from grandbatch.store.reading.arrays import Array, ArrayReader
from grandbatch.store.reading.opened import OpenFiles
from grandbatch.store.reading.together import SMALL_BYTES, read_rows_together

__all__ = [
    "SMALL_BYTES",
    "Array",
    "ArrayReader",
    "OpenFiles",
    "ReadAhead",
    "read_rows_together",
]
