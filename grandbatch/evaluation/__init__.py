"""What policies would have earned on bars they never learnt from, and whether that is luck.

| module | |
|---|---|
| `api` | `evaluate` and `evaluate_walk_forward` |
| `walking` | recorded windows in the order in which policies trade them |
| `performance` | from exposures to returns and figures |
| `chance` | how easily chance does as well |
| `results` | what comes out |

Importing this loads no torch.
"""

from grandbatch.evaluation.api import evaluate, evaluate_walk_forward
from grandbatch.evaluation.chance import Verdict
from grandbatch.evaluation.performance import Performance
from grandbatch.evaluation.results import Evaluation, SymbolResult, Track

__all__ = [
    "Evaluation",
    "Performance",
    "SymbolResult",
    "Track",
    "Verdict",
    "evaluate",
    "evaluate_walk_forward",
]
