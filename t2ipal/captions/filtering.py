"""Running the noun filter over captions, and choosing how many to keep.

Owns the kept and the rejected record; knows no file format and no store.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from t2ipal.captions.nouns import NounFilter
from t2ipal.captions.vocabulary import Vocabulary
from t2ipal.config import listed, require
from t2ipal.store import Caption

SHOWN, MORE = 20, "more classes"
"""Classes that a remark names, and what it calls the others."""
FULL = "class full: "
"""How the reason begins where a class has `max_per_class` captions."""


@dataclass(frozen=True)
class FilterResult:
    """Kept and rejected captions, each in the order they came."""

    kept: list[Caption]
    rejected: list[Caption]
    num_named: tuple[int, ...] = ()
    """Captions that name each class, those included that were not chosen."""
    test_images: Mapping[str, Any] | None = None
    """Facts of test images whose captions were left out or counted; None: not looked at."""

    def reasons(self) -> dict[str, int]:
        """Number of rejected captions by reason without its class names, most frequent first."""
        return dict(Counter(item.reason.partition(":")[0] for item in self.rejected).most_common())


def filter_captions(
    captions: Iterable[Caption],
    vocabulary: Vocabulary,
    num_captions: int | None = None,
    seed: int = 0,
    max_per_class: int | None = None,
) -> FilterResult:
    """Keeps the captions that name a class of the vocabulary.

    Args:
        captions: what `read_captions` gives.
        vocabulary: the classes.
        num_captions: keep at most this many; which ones depends on the seed and their ids alone,
            so fewer are always a part of more and the order of the file does not matter. None
            keeps all.
        seed: of that choice.
        max_per_class: each caption counts for the rarest class it names (rarest among all that
            pass); keep the first so many per class, as the ancestor does with 1000 for NUS-WIDE.
            None keeps all.

    Raises:
        ValueError: a count below 1, or no caption passes.
    """
    for name, count in (("num_captions", num_captions), ("max_per_class", max_per_class)):
        require(count is None or count > 0, f"{name} must be > 0, got {count}.")
    noun_filter = NounFilter(vocabulary)
    kept: dict[int, Caption] = {}
    rejected: dict[int, Caption] = {}
    for at, caption in enumerate(captions):
        if caption.reason:  # its row could not be read
            rejected[at] = caption
            continue
        verdict = noun_filter(caption.caption)
        if verdict.reason:
            rejected[at] = replace(caption, reason=verdict.reason)
        else:
            kept[at] = replace(caption, labels=verdict.labels)
    if not kept:
        counts = Counter(item.reason for item in rejected.values()).most_common(3)
        seen = "; ".join(f"{count} x {reason}" for reason, count in counts) or "no captions came"
        raise ValueError(
            f"No caption names a class of vocabulary {vocabulary.name!r} ({seen})."
            " Choose the vocabulary that fits the captions, or add synonyms."
        )
    named = Counter(index for item in kept.values() for index in item.labels)
    refused: dict[int, str] = {}
    if max_per_class is not None:
        refused = _over_quota(kept, named, vocabulary, max_per_class)
    if num_captions is not None:
        rest = [at for at in kept if at not in refused]
        rest.sort(key=lambda at: _draw(seed, kept[at].caption_id))
        refused |= dict.fromkeys(rest[num_captions:], "not chosen")
    for at, reason in refused.items():
        rejected[at] = replace(kept.pop(at), labels=(), reason=reason)
    return FilterResult(
        list(kept.values()),
        [rejected[at] for at in sorted(rejected)],
        tuple(named[index] for index in range(len(vocabulary.class_names))),
    )


def class_remarks(vocabulary: Vocabulary, captions: FilterResult) -> list[str]:
    """What a person should know of the classes before images of the captions are drawn."""
    drawn = {index for caption in captions.kept for index in caption.labels}
    counted = list(zip(vocabulary.class_names, captions.num_named))
    absent = [name for name, count in counted if not count]
    left_out = [name for at, (name, count) in enumerate(counted) if count and at not in drawn]
    remarks = []
    if absent:
        remarks.append(
            f"No caption names {listed(absent, SHOWN, MORE)}. Recognizers will know what is not "
            "named by its name alone: add captions or synonyms, or leave it out of the vocabulary."
        )
    if left_out:
        remarks.append(
            f"No caption that was chosen names {listed(left_out, SHOWN, MORE)}, though others do: "
            "choose more, or with another seed."
        )
    full = Counter(c.reason.removeprefix(FULL) for c in captions.rejected if FULL in c.reason)
    if full:
        counts = [f"{name} {count:,}" for name, count in full.most_common()]
        remarks.append(
            f"{full.total():,} captions are left out, since their rarest class has enough: "
            f"{listed(counts, SHOWN, MORE)}."
        )
    return remarks


def _draw(seed: int, caption_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{caption_id}".encode()).digest()


def _over_quota(
    kept: Mapping[int, Caption], named: Counter[int], vocabulary: Vocabulary, max_per_class: int
) -> dict[int, str]:
    """Positions beyond the first `max_per_class` of their rarest class, with the reason."""
    taken: Counter[int] = Counter()
    refused: dict[int, str] = {}
    for at, item in kept.items():
        rarest = min(item.labels, key=lambda index: (named[index], index))
        taken[rarest] += 1
        if taken[rarest] > max_per_class:
            refused[at] = f"{FULL}{vocabulary.class_names[rarest]}"
    return refused
