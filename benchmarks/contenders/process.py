"""A contender in a process of its own, which is kept alive and asked in turn.

Imports, models and compiled graphs stay there, out of the times of all others, and its peak memory
is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from benchmarks.contenders.protocol import Task


class ContenderError(RuntimeError):
    """A contender failed; the message is its own."""


class ContenderProcess:
    """Asks one contender over pipes; use it as a context manager.

    Args:
        name: A key of `worker.CONTENDERS`.
        task: What it is made for.
    """

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        threads = str(task.threads)
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.contenders.worker",
                name,
                json.dumps(task.to_json()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, step: str, **arguments: Any) -> dict[str, Any]:
        """Have one step done.

        Returns:
            `seconds`, `cpu_seconds`, `peak_bytes` of the process so far, and `value`.

        Raises:
            ContenderError: If it fails or ends.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise ContenderError(f"{self.name} has no pipes")
        try:
            self._process.stdin.write(json.dumps({"step": step, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ContenderError(f"{self.name} has ended") from error
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(f"{self.name} ended with {self._process.wait()} during {step}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ContenderError(f"{self.name} failed at {step}: {reply['error']}")
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
