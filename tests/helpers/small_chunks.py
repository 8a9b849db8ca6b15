"""Imported by a process, makes files small as `small_files` of `growing` does in the tests' own."""

import grandbatch.store.format as store_format

store_format._FILE_BYTES = 10_000
store_format.LABEL_CHUNK_WINDOWS = 32
