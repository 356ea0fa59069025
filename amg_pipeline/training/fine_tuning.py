"""What is trained, and how fast: freezing, progressive unfreezing, learning rates by layer.

A part is frozen with Keras's own `trainable = False`. `ProgressiveUnfreezing` lets more of the
encoder join in later epochs; `LayerwiseAdamW` moves early layers less than late ones.

Source: Howard and Ruder 2018, ULMFiT (arXiv:1801.06146), for both; Bao et al. 2021, BEiT
(arXiv:2106.08254), for the rates of a ViT's layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.model import SAM

#: Tables whose rows are tokens, or are added to tokens or positions: no kernels.
_EMBEDDING = re.compile(r"(^|/)(\w+_embed|\w+_tokens?|point_embeddings_\d+)$")


def freeze_encoder(sam: SAM, *, trained_blocks: int = 0) -> None:
    """Freeze the image encoder, but for its last blocks and, with these, its neck.

    Args:
        sam: Is changed in place; prompt encoder and mask decoder become trainable.
        trained_blocks: Blocks that are trained; the encoder's depth, or more, trains all of it.

    Raises:
        ConfigError: If the number is negative.
    """
    if trained_blocks < 0:
        raise ConfigError(f"trained_blocks must not be negative. Received: {trained_blocks}.")
    encoder = sam.image_encoder
    sam.prompt_encoder.trainable = True
    sam.mask_decoder.trainable = True
    encoder.trainable = trained_blocks >= encoder.depth
    if 0 < trained_blocks < encoder.depth:
        # Keras asks the whole before it looks at the parts.
        encoder.trainable = True
        frozen = [encoder.patch_embed, *encoder.blocks[:-trained_blocks]]
        for layer in frozen:
            layer.trainable = False
        if encoder.use_abs_pos:
            encoder.pos_embed.trainable = False


class ProgressiveUnfreezing(keras.callbacks.Callback):
    """Trains the decoder first, then more and more of the encoder's last blocks.

    Args:
        trained_blocks: From which epoch on how many of the encoder's last blocks are trained, e.g.
            `{0: 0, 10: 2, 15: 12}`.
    """

    def __init__(self, trained_blocks: Mapping[int, int]) -> None:
        super().__init__()
        if not trained_blocks or min(trained_blocks) != 0:
            raise ConfigError(
                "trained_blocks must say from epoch 0 on how many blocks are trained. "
                f"Received: {dict(trained_blocks)}."
            )
        self._trained_blocks = dict(sorted(trained_blocks.items()))

    def prepare(self, trainer: Any, epoch: int) -> None:
        """Make trainable what is trained in an epoch."""
        self.prepare_model(trainer.sam, epoch)

    def prepare_model(self, sam: SAM, epoch: int) -> None:
        """Make trainable of a model what is trained in an epoch."""
        blocks = [count for first, count in self._trained_blocks.items() if first <= epoch]
        freeze_encoder(sam, trained_blocks=blocks[-1])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Unfreeze what joins in this epoch."""
        self.prepare(self.model, epoch)
        self.model.follow_trainable()


def layer_rates(sam: SAM, decay: float) -> dict[str, float]:
    """Give each encoder variable's learning rate as a fraction of the decoder's.

    Args:
        sam: A built model.
        decay: Ratio of one block's learning rate to the next one's, in (0, 1].

    Returns:
        Fractions by the variables' paths: 1 in the neck, `decay` in the last block, and so on;
        the patches' embedding is below the first block. What is not listed has 1.

    Raises:
        ConfigError: If the ratio is out of range.
    """
    if not 0.0 < decay <= 1.0:
        raise ConfigError(f"layer_decay must lie in (0, 1]. Received: {decay}.")
    encoder = sam.image_encoder
    rates = {}
    lowest: list[Any] = [*encoder.patch_embed.variables]
    if encoder.use_abs_pos:
        lowest.append(encoder.pos_embed)
    levels: Sequence[Sequence[Any]] = [lowest, *(block.variables for block in encoder.blocks)]
    for below, variables in enumerate(reversed(levels), start=1):
        for variable in variables:
            rates[variable.path] = decay**below
    return rates


@keras.saving.register_keras_serializable(package="amg_pipeline")
class LayerwiseAdamW(keras.optimizers.Adam):
    """AdamW with a learning rate of its own for each variable.

    Scaling gradients would not do it: Adam divides by their size. Steps and decay are scaled.

    Args:
        learning_rate: Rate, or schedule, of variables that are not listed.
        rates: Fractions of it by the variables' paths; see `layer_rates`.
        decay: Share of a weight that is taken off in a step, by its learning rate: AdamW's weight
            decay. Biases and norms, which have one axis, and embeddings of tokens, prompts and
            positions have none.
        **kwargs: Further arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-4,
        *,
        rates: Mapping[str, float] | None = None,
        decay: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.rates = dict(rates or {})
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable."""
        known = self._trainable_variables[self._get_variable_index(variable)]
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.rates.get(known.path, 1.0)
        if self.decay and len(variable.shape) > 1 and not _EMBEDDING.search(known.path):
            self.assign_sub(variable, variable * (rate * self.decay))
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for saving."""
        config = super().get_config()
        config.pop("weight_decay", None)
        return {**config, "rates": self.rates, "decay": self.decay}
