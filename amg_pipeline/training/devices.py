"""Data parallel training: every device takes its part of each batch, all keep the same weights."""

from __future__ import annotations

import keras

from amg_pipeline.errors import ConfigError


def share_batches_out(batch_size: int) -> int:
    """Let all devices of this machine train together; call it before the model is made.

    Gradients are averaged over the devices by XLA, so that a step is that of the whole batch on one
    device, up to the order of sums.

    Args:
        batch_size: Images of a step; each device gets as many.

    Returns:
        The number of devices.

    Raises:
        ConfigError: If Keras runs on another backend than JAX, the one whose devices
            `keras.distribution` shares work among, or the batch cannot be shared out evenly.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        raise ConfigError(
            "optimization.data_parallel needs model.backend jax, for which keras.distribution "
            f"shares batches out. Received: {backend}."
        )
    devices = keras.distribution.list_devices()
    if batch_size % len(devices):
        raise ConfigError(
            f"optimization.batch_size must be a multiple of the {len(devices)} devices. "
            f"Received: {batch_size}."
        )
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    )
    return len(devices)
