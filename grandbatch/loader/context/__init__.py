"""Windows of coarser bars that come with a loader's windows.

| module | |
|---|---|
| `pairing` | which window was known when another was |
| `contexts` | the stores, and the windows that have a context in each |
| `table` | which context belongs to each window of a table |
| `whole` | a coarser store that is kept whole |
| `slots` | contexts of a store that isn't, beside the slots of a table |
| `room` | the memory that either takes |
"""
