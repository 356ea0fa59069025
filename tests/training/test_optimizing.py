from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from amg_pipeline.training.optimizing import WarmUpHold, muon
from tests.sam.small_sam import make_sam

pytestmark = pytest.mark.training


def rates(schedule: WarmUpHold, steps: int) -> np.ndarray:
    return np.array([float(schedule(ops.convert_to_tensor(step))) for step in range(steps)])


def test_learning_rate_rises_is_held_and_falls_to_zero() -> None:
    schedule = WarmUpHold(0.5, warm_up_steps=10, cool_down_steps=20, total_steps=60)
    values = rates(schedule, 70)
    np.testing.assert_allclose(values[:10], 0.05 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(values[10:41], 0.5)
    assert values[50] == pytest.approx(0.25)
    np.testing.assert_allclose(values[60:], 0.0, atol=1e-7)
    again = WarmUpHold(**schedule.get_config())
    np.testing.assert_array_equal(rates(again, 70), values)


def test_without_a_cool_down_the_end_does_not_matter() -> None:
    short, long = (WarmUpHold(0.1, 5, 0, total) for total in (10, 1000))
    np.testing.assert_array_equal(rates(short, 30), rates(long, 30))
    assert rates(short, 30)[-1] == pytest.approx(0.1)


def test_tables_tokens_and_read_outs_are_not_taken_for_matrices() -> None:
    sam = make_sam()
    optimizer = muon(1e-3, ema_momentum=0.9)
    optimizer.build(sam.trainable_variables)
    by_muon = {
        variable.path.split("/", 2)[-1]
        for variable in sam.trainable_variables
        if not optimizer._should_use_adamw(variable)
    }
    assert "blocks_0/mlp/lin1/kernel" in by_muon
    assert [path for path in by_muon if path.endswith("cross_attn_token_to_image/q_proj/kernel")]
    assert not [
        path
        for path in by_muon
        if not path.endswith("kernel") or "hypernetworks" in path or "iou_prediction" in path
    ]
    assert isinstance(optimizer, keras.optimizers.Optimizer)
