"""A training in a process of its own whose trainer takes memory as it is told: a script.

Takes one JSON object: store, folder, config (of BatchConfig), and of the trainer

- take: bytes for each window while a batch is trained on, given back after it;
- grow: bytes that `take` gains with each batch, `most`: up to so many;
- leak: bytes kept for each batch;
- seconds: that a batch takes at least;
- until: a file that ends the training as soon as it is there.

Writes one JSON object, told.json in the folder: windows (in order), sizes of batches, percent
(the highest told), error.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import grandbatch as gb
from grandbatch.errors import GrandbatchError


class Greedy:
    def __init__(self, take=0, grow=0, most=2**62, leak=0, seconds=0.0):
        self.take, self.grow, self.most, self.leak = take, grow, most, leak
        self.seconds = seconds
        self.kept = []

    def train_batch(self, batch):
        self.take = min(self.most, self.take + self.grow)
        held = np.ones(len(batch) * self.take, np.uint8)
        if self.leak:
            self.kept.append(np.ones(self.leak, np.uint8))
        time.sleep(self.seconds)
        return {"avg_reward": float(held[:1].sum()), "avg_loss": 0.0}

    def state_dict(self):
        return {"take": self.take}

    def load_state_dict(self, state):
        self.take = state["take"]


def main(store, folder, config, trainer, until=None, epochs=1, **options):
    store = gb.MatrixStore.open(store)
    config = gb.BatchConfig(sequence_length=store.sequence_length, overlap=store.overlap, **config)
    told = {"windows": [], "sizes": [], "percent": 0.0, "error": None}
    try:
        processor = gb.BatchProcessor(store, config, folder, epochs=epochs, **options)
        results = processor.process_batches(Greedy(**trainer))
        for result in results:
            told["windows"] += result["batch"].index.tolist()
            told["sizes"].append(result["batch_size"])
            told["percent"] = max(told["percent"], result["memory_usage"])
            if until is not None and Path(until).exists():
                results.close()
                break
    except GrandbatchError as error:
        told["error"] = f"{type(error).__name__}: {error}"
    (Path(folder) / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
