"""The command line: parsing and printing only.

| module | |
|---|---|
| `main` | the commands, put together; errors become one line and an exit code |
| `running` | how commands are found, loaded and shown while they run |
| `building` | `simulate`, `plan`, `build` |
| `features` | `features`, `check` |
| `stores` | `inspect`, `verify`, `stream`, `report` |
| `watching` | `watch` |
| `training` | `train` |
| `judging` | `evaluate` |
| `serving` | `serve` |
| `monitoring` | `monitor` |
| `upkeep` | `cache`, `quarantine`, `doctor`, `config` |
| `demo` | `demo` |
| `options` | flags that several commands share |
| `learning` | flags that say what a training learns from: splits, contexts |
| `settings` | settings that are no flags: variables, files, defaults |
| `output` | results on stdout, as text or JSON |
"""

from grandbatch.cli.main import main

__all__ = ["main"]
