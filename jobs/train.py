"""The entrypoint of a Ray job: `amg train` with the same arguments and exit codes."""

from __future__ import annotations

import sys

from amg_pipeline.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
