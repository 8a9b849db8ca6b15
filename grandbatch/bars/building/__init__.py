"""A bars cache built: blocks read by tasks, settled together, joined or merged, published.

| module | |
|---|---|
| `block` | one task: a block of an input to clean bars, bad rows, and a record of both |
| `planning` | how each input is written, and which blocks it is read in |
| `memory` | what reading needs: sizes of blocks, and how many tasks run at once |
| `raw` | blocks' bars on their way to parts |
| `carries` | what a block's rows must know of the blocks beside it |
| `settling` | what the rows of all blocks decide together: how timestamps are meant |
| `disorder` | rows that don't rise in time, and what would make them right |
| `quarantine` | bad rows of all blocks: counted, gathered, refused |
| `assembly` | blocks' bars joined to parts, in file order |
| `sorting` | blocks' bars merged to parts, by symbol and time |
| `spikes` | bars that leap out and back |
| `gaps` | values that stand in for those that extra columns lack |
| `looking` | what in clean bars is worth a look |
| `problems` | what goes wrong with inputs as a whole, in words |
| `build` | the whole way |
"""
