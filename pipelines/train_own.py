"""Train and evaluate a team on a feature set of your own, from bars to a judged model.

    python pipelines/train_own.py features.py:MINE bars.csv --out run-mine

Ctrl-C ends it with a checkpoint; the same command goes on. `--help` lists the settings, which a
YAML file (`--settings`) may hold as well.
"""

from __future__ import annotations

from prepare import run
from training import main

import grandbatch as gb

if __name__ == "__main__":
    run(lambda: main(None, gb.BatchConfig()))
