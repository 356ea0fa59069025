"""A training in a process of its own: `python -m tests.training.killable_training OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from amg_pipeline.sam import SAM
from amg_pipeline.training.runs import run_training
from amg_pipeline.training.settings import TrainConfig, load_train_config
from tests.training.small_preset import SMALL

#: Everything that has a state: a block that joins later, augmentation, a schedule.
CONFIG = """
data:
  train: [{format: synthetic, path: 3}]
  valid: [{format: synthetic, path: 1}]
prompts: {per_image: 2, rounds: 1}
freezing: {trained_blocks: {0: 0, 2: 1}, cached_views: 0}
optimization:
  {epochs: 4, batch_size: 2, steps_per_epoch: 4, learning_rate: 0.01, layer_decay: 0.5, xla: false}
checkpoint_steps: 2
"""


def build(_config: TrainConfig) -> SAM:
    return SAM.from_preset(SMALL)


if __name__ == "__main__":
    # Compiled, as users run it: a graph made anew must compute what the unbroken one did.
    output = Path(sys.argv[1])
    run_training(load_train_config(CONFIG, overrides=[f"output={output}"]), sys.stderr, build=build)
