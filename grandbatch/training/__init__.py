"""A training in one place: what is asked of a trainer, and what goes on around its batches.

| module | |
|---|---|
| `trainer` | `Trainer`: the protocol that a learner keeps |
| `guard` | `TrainingGuard`: keeps a training inside its memory, batch by batch |
| `sizing` | how many windows a batch may have, by what batches really take |
| `agreement` | what all ranks settle on, at stated steps |
| `totals` | sums over a whole training, resumed or not |
| `validation` | `Validation`: windows that a trainer is judged on at the end of epochs |
| `provenance` | `Provenance`: which bars a training has seen; `Goal`: how far it is to go |
| `lineage` | `Lineage`: which stores a training went through, and which windows it had |
| `resuming` | taking up a training: on the same windows, or on those that are new |
| `source` | the store that a training learns from |
| `metrics_log` | the metrics as JSON lines beside the checkpoints |
| `callbacks` | `Callback` and `TensorBoard`: what others do at batches, epochs and checkpoints |
| `interrupts` | Ctrl-C at a moment when it can be answered |
"""

from grandbatch.training.callbacks import Callback, TensorBoard
from grandbatch.training.trainer import Trainer

__all__ = ["Callback", "TensorBoard", "Trainer"]
