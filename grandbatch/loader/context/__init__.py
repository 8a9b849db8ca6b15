"""Windows of coarser bars that come with a loader's windows.

| module | |
|---|---|
| `pairing` | which window was known when another was |
| `contexts` | the stores, and the windows that have a context in each |
| `table` | contexts beside the chunks of a table |
"""
