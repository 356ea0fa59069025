"""A local web page on which people review the masks of a run.

`session` knows what there is and what was decided, `app` offers it over HTTP behind `guard`, and
`page/` is what the browser runs: plain scripts without a build step or a download from elsewhere.
"""
