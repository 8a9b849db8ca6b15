"""How a store is built: plan, admit, write, publish. `grandbatch.build` is the public call.

| module | |
|---|---|
| `settings` | everything but the bars that determines a store's bytes |
| `reuse` | what stands where a store is asked for: one to reuse, to extend, to replace |
| `differences` | what sets a store apart from the one asked for, in words |
| `check` | kernels that aren't built in, tried on the bars before anything is written |
| `plan` | the chunks and files of a store, and the tasks that write them |
| `estimate` | what a build would need, before it is done |
| `engines` | how features reach the tasks: `overlap` or `direct` |
| `chunks` | one task: the chunks of one file |
| `labels` | one task: the per-window values of some chunks |
| `extend` | what of a store stays when its inputs have grown |
| `workers` | what is asked of a cluster's workers before the first task |
| `growth` | what of a store's history each growth corrected, beside it |
| `records` | the records of all files, read by tasks: which are finished, all joined |
| `history` | what builds took, beside their stores |
| `builder` | the whole way |

Importing this imports no Dask.
"""
