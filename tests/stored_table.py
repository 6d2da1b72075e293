"""Features in memory, written into several files of a store and read back as a table."""

import itertools
from collections.abc import Sequence

import numpy as np

from t2ipal.features.config import FeatureAccess
from t2ipal.features.extraction import stored_columns
from t2ipal.features.sets import FeatureSet
from t2ipal.features.table import BACKBONE, FeatureFiles, StoredFeatures
from t2ipal.store import Names, Store, write_arrays


def stored_table(
    store: Store,
    rows: FeatureSet,
    sizes: Sequence[int],
    kind: str = "fp16",
    folder: str = "f",
    access: FeatureAccess | None = None,
    fingerprint: str = "",
) -> StoredFeatures:
    """The rows in files of these sizes, named `folder`/0 and on; row 3 has the key "k3"."""
    starts, keys = np.cumsum([0, *sizes]), [f"k{at}" for at in range(len(rows))]
    for number, (first, last) in enumerate(itertools.pairwise(starts)):
        part = stored_columns(rows.rows(slice(first, last)), kind)
        write_arrays(store, f"{folder}/{number}", part, keys[first:last], {BACKBONE: "abc"})
    return table_of(store, starts, folder, rows.labels > 0, access, fingerprint)


def table_of(store, starts, folder, labels, access=None, fingerprint=""):
    """What lies in those files."""
    shards = [*store.entries(f"{folder}/").items()]
    names = Names([f"k{at}" for at in range(starts[-1])])
    files = FeatureFiles(store, shards, starts, names, access or FeatureAccess(), fingerprint)
    return StoredFeatures(files, labels)
