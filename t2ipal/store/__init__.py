"""Where runs live: objects in a folder or bucket, shards of images, tables and arrays.

The only package that imports boto3 and pyarrow. It knows no model, no caption filter and no Ray.
"""

from t2ipal.store.objects import Store, read_bytes
from t2ipal.store.shards import (
    check_plan,
    commit_shard,
    committed_shards,
    encode_jpeg,
    open_run,
    read_images,
    read_manifest,
    read_rows,
    write_manifest,
)
from t2ipal.store.tables import (
    read_arrays,
    read_parquet_columns,
    read_stored_captions,
    write_arrays,
    write_captions,
)

__all__ = [
    "Store",
    "check_plan",
    "commit_shard",
    "committed_shards",
    "encode_jpeg",
    "open_run",
    "read_arrays",
    "read_bytes",
    "read_images",
    "read_manifest",
    "read_parquet_columns",
    "read_rows",
    "read_stored_captions",
    "write_arrays",
    "write_captions",
    "write_manifest",
]
