"""Which files are meant, and how their bytes are reached.

| module | |
|---|---|
| `digests` | what is in them: digests, and the record of those |
| `files` | paths, folders, patterns and URLs to files, and how these stand |
| `hive` | folders that are columns |
| `in_objects` | the objects that a URL stands for: one, a folder's, a pattern's |
| `joined` | files read as one series whose names look like symbols |
| `opening` | files by path or URL: looking at them, opening them |
| `packing` | packed text: how it is packed, what is in it, reading it as a stream |
"""
