"""Where runs live: objects in a folder or bucket, shards of images, tables and arrays.

The only package that imports boto3 and pyarrow. It knows no model, no caption filter and no Ray.
"""

from t2ipal.store.choices import (
    check_choice_name,
    read_choice,
    read_choice_settings,
    write_choice,
)
from t2ipal.store.objects import Store, end_old_uploads, read_bytes
from t2ipal.store.sections import (
    Section,
    read_extras,
    read_sections,
    read_stored_captions,
    write_extras,
    write_rejected,
    write_section,
    write_section_captions,
)
from t2ipal.store.shards import (
    check_plan,
    commit_shard,
    committed_shards,
    count_samples,
    describes,
    how_to_begin_anew,
    is_retry,
    open_run,
    read_encoded_images,
    read_images,
    read_manifest,
    read_marker,
    read_rows,
    read_settings,
    read_shard_rows,
    retry_name,
    write_manifest,
)
from t2ipal.store.status import RunStatus, run_status
from t2ipal.store.tables import read_arrays, read_json, read_parquet_columns, write_arrays

__all__ = [
    "RunStatus",
    "Section",
    "Store",
    "check_choice_name",
    "check_plan",
    "commit_shard",
    "committed_shards",
    "count_samples",
    "describes",
    "end_old_uploads",
    "how_to_begin_anew",
    "is_retry",
    "open_run",
    "read_arrays",
    "read_bytes",
    "read_choice",
    "read_choice_settings",
    "read_encoded_images",
    "read_extras",
    "read_images",
    "read_json",
    "read_manifest",
    "read_marker",
    "read_parquet_columns",
    "read_rows",
    "read_sections",
    "read_settings",
    "read_shard_rows",
    "read_stored_captions",
    "retry_name",
    "run_status",
    "write_arrays",
    "write_choice",
    "write_extras",
    "write_manifest",
    "write_rejected",
    "write_section",
    "write_section_captions",
]
