"""The automatic mask generation algorithm on arrays; it knows the model only as a `Segmenter`."""
