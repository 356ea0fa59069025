"""From a stored run to the formats of other tools; one module a format.

Lowest first: `settings`, `pixels` and `polygons` (a mask's pixels and its rings), `shapes` (what
formats with polygons have in common), `names` (of files), `json_text`; then the formats, and
`formats`, which knows them all.
"""
