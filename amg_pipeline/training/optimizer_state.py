"""Lets an optimizer go on with other variables than it began with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def rebuilt_for(optimizer: Any, variables: Sequence[Any]) -> Any:
    """Make an equal optimizer for a set of variables, with what was known of those it had.

    A Keras optimizer takes only the variables that it was built for. Its momenta of variables that
    stay, its count of steps and its learning rate are carried over; new variables start without.

    Args:
        optimizer: A built optimizer; is left as it is.
        variables: What is to be trained from now on.

    Returns:
        An optimizer of the same kind and settings, built for the variables.
    """
    config = optimizer.get_config()
    if isinstance(config["learning_rate"], dict):
        # The schedule itself: a class of the caller's need not be known to Keras by name.
        config["learning_rate"] = optimizer._learning_rate
    fresh = type(optimizer).from_config(config)
    fresh.build(list(variables))
    known = {variable.path: variable for variable in optimizer.variables}
    for variable in fresh.variables:
        old = known.get(variable.path)
        if old is not None and old.shape == variable.shape:
            variable.assign(old)
    return fresh
