"""An honest experiment: learn from one part of the bars, choose by another, judge on a third.

| module | |
|---|---|
| `wiring` | a processor and a trainer that keep to splits |
| `walking` | walk-forward over seeds |
| `judging` | teams read from checkpoints, on bars that their trainings have not seen |
"""

from grandbatch.experiment.judging import Candidate, Judgement, hardly_trained, judge_trainings
from grandbatch.experiment.walking import judge_walk_forward
from grandbatch.experiment.wiring import (
    VALIDATION,
    coarser_split,
    kind_of,
    take_weights,
    wire_training,
)

__all__ = [
    "VALIDATION",
    "Candidate",
    "Judgement",
    "coarser_split",
    "hardly_trained",
    "judge_trainings",
    "judge_walk_forward",
    "kind_of",
    "take_weights",
    "wire_training",
]
