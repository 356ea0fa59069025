"""A stored run with tighter settings, without the model.

`exactness` says what can be had from what is stored; `replay` does to candidates what a run does
after the model; `cleaning` changes masks in ways that no run does; `new_run` makes the output.
"""
