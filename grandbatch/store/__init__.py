"""Stores of matrices: their format, how they are written, published and read.

| module | |
|---|---|
| `format` | the arrays: names, shapes, chunks, shards; values only |
| `attributes` | what the attributes of a store must be |
| `manifest` | what every chunk must be, byte for byte |
| `metadata` | metadata files, read and checked |
| `codecs` | chunks to bytes and back |
| `repeats` | frames of overlapping windows, written without a search |
| `file_records` | files of chunks, and the record of a finished one |
| `staging` | `Staging`: a store being written |
| `publish` | one builder at a time; a store appears in one step |
| `upload` | a finished store, put where a URL says |
| `identity` | which store a place holds; where copies of its files are |
| `reading` | chunks read, each checked before it is used |
| `slices` | matrices and per-window values as lazy arrays |
| `verification` | every chunk read back, here or on a cluster |
| `reader` | `MatrixStore`: a finished store |
| `notes` | what of a store is worth a look |
"""

from grandbatch.store.reader import MatrixStore
from grandbatch.store.reading import OpenFiles
from grandbatch.store.slices import Labels, Matrices, WindowValues
from grandbatch.store.verification import Verification

__all__ = ["Labels", "Matrices", "MatrixStore", "OpenFiles", "Verification", "WindowValues"]
