"""Files and what stands for them: whole or absent, here or at a URL, with digests of their own.

| module | has |
|---|---|
| `system` | what operating systems differ in: reads at a place, syncing, users, processes, cores |
| `ordinary` | ordinary files opened, read, appended to: never a pipe, never through a link |
| `locations` | a path or a URL: found, looked at, opened for ranges, its version told |
| `objects` | the objects of an object store: read, written under conditions, listed |
| `object_clients` | their clients: by URL, what the environment says; what answers tell |
| `object_errors` | what goes wrong there, told apart by what can be done |
| `patience` | requests made again, with growing pauses and an end |
| `kept_files` | files of an object store, kept on a local disk |
| `verbs` | one set of verbs for a file or a folder, on a disk or in an object store |
| `leases` | one holder at a time, for hosts that share no disk |
| `refusals` | where nothing is written: URLs, what others may have planted, inside a store |
| `whole` | files that are whole or absent, no room, what puts them on the disk |
| `digested` | JSON with its sha256 |
| `json_lines` | logs of JSON lines, each with its sha256 |
| `deferred` | what a pickle names by its location only, opened when it is used |

The modules are imported one by one; nothing here loads fsspec, obstore, pandas or Dask.
"""
