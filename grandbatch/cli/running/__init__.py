"""What surrounds a command while it runs.

| module | |
|---|---|
| `commands` | the commands by their names, made when they are asked for |
| `loading` | importing without a search for garbage |
| `progress` | how far a run is, on stderr |
"""
