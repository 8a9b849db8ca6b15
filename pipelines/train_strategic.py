"""Train and evaluate the strategic team, from bars to a judged model.

    python pipelines/train_strategic.py bars.csv --out run-strategic

Ctrl-C ends it with a checkpoint; the same command goes on. `--help` lists the settings, which a
YAML file (`--settings`) may hold as well.
"""

from __future__ import annotations

from prepare import run
from training import main

import grandbatch as gb

if __name__ == "__main__":
    run(lambda: main("strategic", gb.BatchConfig.strategic()))
