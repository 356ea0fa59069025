"""Bytes in and out: the only package that uses fsspec and pyarrow.

Lowest first: `uris`, `client_errors`, `faults`, `connections` (to stores), `local_files`,
`remote_files` and `s3_files`, `claims` (creating once where a store cannot), `object_store`; on top
of it `images` (photos to pixels), `manifest` (input to a table of images and shards), `mask_table`
(results to Parquet and back) and `run_directory` (the layout of an output).
"""
