"""A run that is looked at again and again: of its objects, only those that are new are read."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from t2ipal.store.entries import Entry
from t2ipal.store.objects import Store
from t2ipal.store.records import Marker
from t2ipal.store.sections import Section, read_sections
from t2ipal.store.shards import READERS, failure_reasons, last_attempts, stored_marker


class RunWatch:
    """What a run was asked for and what it has, as of the last `look`."""

    def __init__(self, store: Store):
        self.store = store
        self.sections: tuple[Section, ...] = ()
        self.markers: tuple[Marker, ...] = ()
        """Of its shards, in order of their names."""
        self.times: Mapping[str, float] = {}
        """When each of those shards was finished, in seconds since 1970, by its name."""
        self._section_versions: dict[str, str] = {}
        self._known: dict[str, tuple[str, Marker]] = {}
        self._reasons: dict[str, tuple[Marker, dict[str, int]]] = {}

    def look(self) -> None:
        """Reads what is new.

        Raises:
            ValueError: a section or marker is damaged.
        """
        sections = self.store.entries("sections/")
        versions = {key: entry.version for key, entry in sections.items()}
        if versions != self._section_versions:
            self.sections = tuple(read_sections(self.store))
            self._section_versions = versions
        images = self.store.entries("images/")
        there = {key: entry for key, entry in images.items() if key.endswith(".json")}
        new = [key for key, entry in there.items() if not self._knows(key, entry)]
        # A bucket answers after some milliseconds, to many at once as to one.
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda key: stored_marker(self.store, key), new)
            known = {key: (there[key].version, marker) for key, marker in zip(new, read)}
        self._known = {key: known.get(key) or self._known[key] for key in there}
        self.markers = tuple(marker for _, marker in self._known.values())
        self.times = {m.shard: there[key].modified_s for key, (_, m) in self._known.items()}

    def _knows(self, key: str, entry: Entry) -> bool:
        return key in self._known and self._known[key][0] == entry.version

    def failed_by_reason(self) -> dict[str, int]:
        """How many samples failed at their last attempt for each reason, the most frequent first.

        Reads the sidecars of shards with such samples, each once, and no others.
        """
        failed = [marker for marker in last_attempts(self.markers) if marker.num_failed]
        new = [m for m in failed if m.shard not in self._reasons or self._reasons[m.shard][0] != m]
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda marker: failure_reasons(self.store, [marker]), new)
            for marker, reasons in zip(new, read):
                self._reasons[marker.shard] = marker, reasons
        counts: Counter[str] = Counter()
        for marker in failed:
            counts.update(self._reasons[marker.shard][1])
        return dict(counts.most_common())
