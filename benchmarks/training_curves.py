"""Twenty steps of fine-tuning on the backend at hand, for `benchmarks.backends` to compare.

The whole model is trained, with two rounds of prompts and mask prompts shown, so that every part
has gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

#: Largest relative difference of a step's loss between two backends. Rounding grows from step to
#: step, and a click may fall elsewhere; seen: 4e-3 with JAX, 2e-5 with PyTorch.
TOLERANCE = 1e-2
STEPS = 20


def loss_curve(*, data_parallel: bool = False) -> list[float]:
    """Fit a small model, on all devices if asked; give the loss of each step."""
    import keras

    if data_parallel:
        from amg_pipeline.training.devices import share_batches_out

        if share_batches_out(2) != 2:
            raise SystemExit("two devices were expected")

    from amg_pipeline.sam import SAM
    from amg_pipeline.sam.presets import PRESETS
    from amg_pipeline.training import LabelledViews, PromptedBatches, SAMTrainer
    from amg_pipeline.training.fine_tuning import LayerwiseAdamW, layer_rates
    from amg_pipeline.training.sources.synthetic import read_synthetic

    preset = replace(PRESETS["tiny"], img_size=64, depth=1, global_attn_indexes=())
    sam = SAM.from_preset(preset)
    draw_weights(sam)
    batches = PromptedBatches(
        LabelledViews(read_synthetic(2, size=64), sam),
        batch_size=2,
        prompts=4,
        rounds=2,
        steps=STEPS,
    )
    trainer = SAMTrainer(sam, rounds=2, mask_prompts=True)
    trainer.compile(
        optimizer=LayerwiseAdamW(1e-3, rates=layer_rates(sam, 0.8), global_clipnorm=1.0),
        jit_compile=keras.backend.backend() == "jax",
    )
    losses = Losses()
    trainer.fit(batches, callbacks=[losses], shuffle=False, verbose=0)
    return losses.of_steps()


def draw_weights(sam: Any) -> None:
    """Draw all variables with NumPy: backends draw differently from one seed."""
    import numpy as np

    rng = np.random.default_rng(0)
    for variable in sam.variables:
        if variable.name == "gamma":
            continue
        fan_in = np.prod(variable.shape[:-1]) if variable.name == "kernel" else 25.0
        variable.assign(rng.normal(0.0, fan_in**-0.5, variable.shape).astype(np.float32))


def Losses() -> Any:  # noqa: N802 (a class that needs Keras)
    """Make a callback that keeps the loss of each step, from Keras's running mean."""
    import keras

    class Kept(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self._means: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self._means.append(float(logs["loss"]))

        def of_steps(self) -> list[float]:
            sums = [mean * (i + 1) for i, mean in enumerate(self._means)]
            return [s - before for s, before in zip(sums, [0.0, *sums[:-1]], strict=True)]

    return Kept()


def worst_difference(first: list[float], second: list[float]) -> float:
    """Give the largest relative difference of two curves."""
    return max(abs(a - b) / abs(a) for a, b in zip(first, second, strict=True))
