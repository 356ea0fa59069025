"""What every test runs under: the CPU, quiet native logs, and a fixed hypothesis profile."""

from __future__ import annotations

import os

from hypothesis import settings

# Read by TensorFlow, JAX and Ray when they are first imported, so set before any test module is.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# The suite gives the same result each time and is not judged by the speed of a shared machine.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
