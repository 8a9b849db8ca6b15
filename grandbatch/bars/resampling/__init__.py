"""Coarser bars from finer ones: a cache of bars made of another.

| module | |
|---|---|
| `gathering` | the coarser bars of some rows of a symbol |
| `build` | tasks over all symbols, and the cache that they leave |
"""
