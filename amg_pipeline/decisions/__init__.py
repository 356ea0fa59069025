"""What people decided about the masks of a run: accepted, rejected, merged, tagged.

Decisions lie beside the run, a log for each reviewer, and never in it. `verdicts` says what those
of all reviewers come to; `review` is the page on which they are made.
"""
