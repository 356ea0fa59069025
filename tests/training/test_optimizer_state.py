from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from amg_pipeline.training.optimizer_state import rebuilt_for
from tests.sam.small_sam import as_arrays


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that Keras does not know by name."""

    def __call__(self, step: object) -> object:
        return 0.1 * 0.5 ** ops.cast(step, "float32")

    def get_config(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize("rate", [0.1, Halving()], ids=["number", "schedule"])
def test_what_is_known_of_variables_that_stay_is_carried_over(rate: object) -> None:
    first, second, third = (keras.Variable(np.ones(2), name=name) for name in "abc")
    optimizer = keras.optimizers.Adam(rate)
    for _ in range(2):
        optimizer.apply([ops.ones(2), ops.ones(2)], [first, second])
    fresh = rebuilt_for(optimizer, [second, third])
    old = {v.path: as_arrays(v) for v in optimizer.variables}
    new = {v.path: as_arrays(v) for v in fresh.variables}
    kept = [path for path in new if path in old]
    assert len(kept) == len(old) - 2  # the two momenta of the variable that left
    for path in kept:
        np.testing.assert_array_equal(new[path], old[path])
    assert int(fresh.iterations) == 2
    np.testing.assert_allclose(float(fresh.learning_rate), float(optimizer.learning_rate))
    fresh.apply([ops.ones(2), ops.ones(2)], [second, third])
