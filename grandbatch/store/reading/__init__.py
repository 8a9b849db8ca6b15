"""Chunks of arrays, and parts of them, read and checked.

| module | |
|---|---|
| `arrays` | `ArrayReader`: one array's chunks, each checked against the manifest |
| `ahead` | `ReadAhead`: many chunks by one request, where each would be one |
| `opened` | `OpenFiles`: the files they are in, kept open from one to the next |
"""

from grandbatch.store.reading.ahead import ReadAhead
from grandbatch.store.reading.arrays import Array, ArrayReader
from grandbatch.store.reading.opened import OpenFiles

__all__ = ["Array", "ArrayReader", "OpenFiles", "ReadAhead"]
