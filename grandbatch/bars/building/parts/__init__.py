"""Blocks' bars to the parts of a cache, and what is settled there, where bars are in order.

| module | |
|---|---|
| `assembly` | blocks' bars joined to parts, in file order |
| `sorting` | blocks' bars merged to parts, by symbol and time |
| `made` | the parts that stand, and of which blocks they were made |
| `spikes` | bars that leap out and back |
| `gaps` | values that stand in for those that extra columns lack |
| `looking` | what in clean bars is worth a look |
"""
