"""How good masks are, against people's or against another run's.

Lowest first: `annotated` (an image and the segments that people drew), `datasets` (where these come
from), `point_model` (what is asked of a model) with `sam_points` (SAM as such a model), `results`
(what a measurement gives), and one module a measurement: `clicks` (with `clicking`), `proposals`,
`edges` (with `edge_maps` and `boundary_matching`), `agreement`. Nothing here draws or writes; the
command line passes in what does.
"""
