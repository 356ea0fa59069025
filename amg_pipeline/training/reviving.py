"""Starts an output of the mask decoder again, from another one's weights.

Of a prompt's three outputs the one that fits a mask best learns from it. An output that has come to
answer with what hardly anybody means, such as nearly the whole image, fits nothing else best, and
so learns nothing else: two outputs are left to choose from. Begun again as a slightly different
twin of a busy one, it shares that one's masks, and both find what they are better at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM

#: Standard deviations of the noise by which twins differ, relative to those of the weights.
_TOKEN_NOISE, _WEIGHT_NOISE = 0.1, 0.03


def revive_output(sam: SAM, *, lost: int, twin: int, seed: int) -> None:
    """Give an output the weights of another one, and a little noise.

    Args:
        sam: The model, which is changed in place.
        lost: Output that starts again, 1 to 3; 0 is the one for unambiguous prompts.
        twin: Output that it starts from.
        seed: Decides the noise.

    Raises:
        ValueError: If an output does not exist, or both are the same.
    """
    decoder = sam.mask_decoder
    if lost == twin or not {lost, twin} <= set(range(decoder.num_mask_tokens)):
        raise ValueError(
            f"Expected two different outputs below {decoder.num_mask_tokens}. "
            f"Received: {lost} and {twin}."
        )
    rng = np.random.default_rng(seed)
    tokens = np.asarray(decoder.mask_tokens).copy()
    tokens[lost] = _noisy(rng, tokens[twin], _TOKEN_NOISE)
    decoder.mask_tokens.assign(tokens)
    mlps = decoder.output_hypernetworks_mlps
    for source, target in zip(mlps[twin].variables, mlps[lost].variables, strict=True):
        target.assign(_noisy(rng, np.asarray(source), _WEIGHT_NOISE))
    scores = decoder.iou_prediction_head.layers[-1]
    for variable in (scores.kernel, scores.bias):
        values = np.asarray(variable).copy()
        values[..., lost] = values[..., twin]
        variable.assign(values)


def _noisy(
    rng: np.random.Generator, values: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    noise = rng.normal(0.0, share * values.std(), values.shape)
    noisy: NDArray[np.float32] = (values + noise).astype(np.float32)
    return noisy
