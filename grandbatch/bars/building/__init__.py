"""A bars cache built: blocks read by tasks, settled together, joined or merged, published.

| module | |
|---|---|
| `making` | a cache made: by growing another, or from all files |
| `build` | the whole way from files to a cache |
| `growth` | what a cache must know to grow by new files, and when it can't |
| `planning` | how each input is written, and which blocks it is read in |
| `memory` | what reading needs: sizes of blocks, and how many tasks run at once |
| `block` | one task: a block of an input to clean bars, bad rows, and a record of both |
| `judging` | which rows of a block are bars, given the blocks beside it |
| `filling` | rows whose extra columns lack a value: no bars, or a gap to fill |
| `raw` | blocks' bars on their way to parts |
| `carries` | what a block's rows must know of the blocks beside it |
| `settling` | what the rows of all blocks decide together: how timestamps are meant |
| `beside` | columns beside the bars that must not change, in all files together |
| `quarantine` | bad rows of all blocks: counted, gathered, refused |
| `disorder` | rows that don't rise in time, and what would make them right |
| `problems` | what goes wrong with inputs as a whole, in words |
| `parts` | blocks' bars to parts, and what is settled there |
"""
