"""Where a loader stands: its epoch, what it handed over, a state that it goes on from.

| module | |
|---|---|
| `standing` | `Standing`: all of it, and what iterating makes of it |
| `state` | a position with the order that it is one in, as JSON |
| `workers` | which epoch the worker processes of a `DataLoader` go through |
"""
