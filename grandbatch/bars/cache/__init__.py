"""The cache of clean bars: what it holds, under which digests, and looking after it.

| module | |
|---|---|
| `bars` | `Bars`: opening a cache, reading rows of it |
| `cutting` | where bars are cut: symbols, gaps, periods |
| `durations` | how long bars last, and when they are known |
| `frames` | bars as a Dask frame |
| `parts` | a Parquet file of one symbol |
| `manifest` | what a cache says of itself |
| `digests` | what its files must be, and reading them no other way |
| `joining` | a cache joined with the bars of files that were added to its inputs |
| `comparing` | which bars of one cache are those of another |
| `extremes` | what there is to tell of bars that follow each other |
| `keeping` | who builds or uses the caches of a folder, and removing what nobody needs |
| `published` | caches in object stores: published by their manifest |
| `upkeep` | a folder of caches: list, clear, whose they are, their bad rows |
"""
