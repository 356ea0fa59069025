"""`python -m amg_pipeline.cli ...` is `amg ...`."""

from amg_pipeline.cli import main

if __name__ == "__main__":
    main()
