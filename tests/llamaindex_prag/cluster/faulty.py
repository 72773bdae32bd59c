"""A worker that says what it trains, and dies or fails at certain passages, in its own process on a node."""

import os
import signal
from pathlib import Path

from llamaindex_prag.cluster.worker import Worker

DEADLY, RAISING = "The deadly passage.", "The raising passage."


class FaultyWorker(Worker):
    """Appends its process id and texts to the file `told.txt` beside the model, and then trains."""

    def train(self, passages, augmentations, side):
        texts = [p.text for p in passages]
        with (Path(self._options.model["name"]).parent / "told.txt").open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\t{len(texts)}\n")
        if DEADLY in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if RAISING in texts:
            raise ValueError("this passage raises")
        return super().train(passages, augmentations, side)
