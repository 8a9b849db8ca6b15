"""What policies would have earned on bars they never learnt from, and whether that is luck.

`walking.py` lets policies trade recorded windows, `performance.py` turns exposures into returns
and figures, `chance.py` asks how easily chance does as well, `results.py` holds what comes out.
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
