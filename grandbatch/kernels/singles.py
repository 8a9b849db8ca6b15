"""Numbers as features hold them: float32, finite. Compiled into the loops that use it.

Whoever changes what this does must change the files that use it too: numba keeps compiled kernels
until their own file changes.
"""

from __future__ import annotations

import math

import numpy as np

from grandbatch.kernels.compilation import inlined

LARGEST = float(np.finfo(np.float32).max)


@inlined
def single(x: float) -> float:
    """Limit a number to float32's range; 0 for what is undefined."""
    limited = x if x < LARGEST else LARGEST
    limited = limited if limited > -LARGEST else -LARGEST
    return 0.0 if math.isnan(x) else limited
