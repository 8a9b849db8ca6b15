"""Train and evaluate the tactical team, from bars to a judged model.

    python pipelines/train_tactical.py bars.csv --out run-tactical

Ctrl-C ends it with a checkpoint; the same command goes on. `--help` lists the settings, which a
YAML file (`--settings`) may hold as well.
"""

from __future__ import annotations

from prepare import run
from training import main

import grandbatch as gb

if __name__ == "__main__":
    run(lambda: main("tactical", gb.BatchConfig.tactical()))
