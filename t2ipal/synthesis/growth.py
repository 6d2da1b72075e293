"""From what is asked for and what a run already holds to the plans of all its shards.

A larger request adds sections; what earlier ones hold is never touched.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import fields

from t2ipal.config import fingerprint, require
from t2ipal.store import (
    Caption,
    Marker,
    RunSettings,
    RunTotals,
    Section,
    Store,
    committed_shards,
    fresh_start_hint,
    read_captions,
    read_extras,
    read_sections,
    read_shard_samples,
    retry_name,
    split_retry,
    write_extras,
    write_rejected,
    write_section,
    write_section_captions,
)
from t2ipal.synthesis.plans import ShardPlan, captions_per_shard, plan_shards


def plan_run(store: Store, settings: RunSettings) -> list[ShardPlan]:
    """Plans of all shards that the run was asked for so far, finished or not."""
    sections = read_sections(store)
    captions = read_captions(store, sections) if sections else []
    return [
        plan
        for section in sections
        for plan in plan_shards(
            captions,
            section,
            settings.synthesis,
            settings.images_per_shard,
            read_extras(store, section) if section.extras_key else None,
        )
    ]


def totals(store: Store, settings: RunSettings) -> RunTotals:
    """The settings with all captions and images that the run was asked for, by whomever."""
    sections = read_sections(store)
    made = [s.first_k + s.num_k for s in sections if not s.extras_key]
    captions = read_captions(store, sections)
    return RunTotals(
        **{
            **{field.name: getattr(settings, field.name) for field in fields(RunSettings)},
            "synthesis": {**settings.synthesis, "images_per_caption": max(made)},
            "num_captions": len(captions),
            "captions": captions_fingerprint(captions),
        }
    )


def captions_fingerprint(captions: Sequence[Caption]) -> str:
    """Of kept captions and their labels, in their order."""
    return fingerprint([[c.caption_id, c.caption, list(c.labels)] for c in captions])


def plan_of_shard(store: Store, settings: RunSettings, shard: str) -> ShardPlan:
    """The plan of one shard by its name, retries included.

    Raises:
        ValueError: the run has no such shard.
    """
    name, attempt = split_retry(shard)
    plan = next((plan for plan in plan_run(store, settings) if plan.shard == name), None)
    require(plan is not None, f"No shard {shard!r} in {store.uri}.")
    assert plan is not None
    if not attempt:
        return plan
    # As it was when this attempt was planned: with the attempts before it, and no later one.
    before = {name, *(retry_name(name, earlier) for earlier in range(1, attempt))}
    finished = {marker.shard: marker for marker in committed_shards(store)}
    plans = plan_retries(store, [plan], {key: finished[key] for key in before if key in finished})
    require(len(plans) == 1 and plans[0].shard == shard, f"No shard {shard!r} in {store.uri}.")
    if shard in finished and "attempt" not in finished[shard].plan:
        # From before attempts had seeds of their own: it was made with those of the first one.
        return dataclasses.replace(plans[0], attempt=0)
    return plans[0]


def plan_retries(
    store: Store, plans: Sequence[ShardPlan], finished: Mapping[str, Marker]
) -> list[ShardPlan]:
    """Plans of another attempt at the samples that failed at the last one, a shard each.

    Whatever they failed for: their seeds, and so their noise, are other ones.

    Args:
        store: home of the run.
        plans: of all shards.
        finished: the markers of the committed ones by name.
    """
    retries = []
    for plan in plans:
        attempt, marker = 0, finished.get(plan.shard)
        while (again := finished.get(retry_name(plan.shard, attempt + 1))) is not None:
            attempt, marker = attempt + 1, again
        if marker is None or not marker.num_failed:
            continue
        places = {(s.caption_id, s.k): place for place, s in enumerate(plan.samples)}
        rows = read_shard_samples(store, marker)
        failed = [(row.caption_id, row.k) for row in rows if not row.is_image]
        name = retry_name(plan.shard, attempt + 1)
        retries.append(plan.again(name, [places[sample] for sample in failed], attempt + 1))
    return retries


def record_request(
    store: Store,
    kept: Sequence[Caption],
    rejected: Sequence[Caption],
    images_per_caption: int,
    images_per_shard: int,
) -> None:
    """Adds the sections that the run lacks for `kept` captions x `images_per_caption`.

    Raises:
        ValueError: the run holds captions, or images of a caption, that are not asked for.
    """
    while True:
        sections = read_sections(store)
        missing = missing_rectangles(store, sections, kept, images_per_caption)
        if not missing:
            write_rejected(store, rejected, if_absent=True)  # someone removed a damaged one
            return
        write_rejected(store, rejected)
        (first_caption, brought, num_captions), (first_k, end_k) = missing[0]
        number, last = len(sections), sections[-1] if sections else None
        size = captions_per_shard(images_per_shard, end_k - first_k)
        section = Section(
            first_shard=last.first_shard + last.num_shards if last else 0,
            num_shards=-(-num_captions // size),
            first_caption=first_caption,
            num_captions=num_captions,
            first_k=first_k,
            num_k=end_k - first_k,
            captions_key=write_section_captions(store, number, brought) if brought else "",
        )
        # Where another driver was first, its section is looked at as any other in the next round.
        write_section(store, number, section)


def record_extras(store: Store, extras: Mapping[int, int], images_per_shard: int) -> None:
    """Adds a section of more images for some captions, with numbers k that none has yet.

    Args:
        store: home of a run.
        extras: position of a caption -> how many more images it gets.
        images_per_shard: as in the run's settings.

    Raises:
        RuntimeError: another driver added something else at this moment.
    """
    sections = read_sections(store)
    num_k, last = max(extras.values()), sections[-1]
    section = Section(
        first_shard=last.first_shard + last.num_shards,
        num_shards=-(-len(extras) // captions_per_shard(images_per_shard, num_k)),
        first_caption=0,
        num_captions=len(extras),
        first_k=max(section.first_k + section.num_k for section in sections),
        num_k=num_k,
        captions_key="",
        extras_key=write_extras(store, len(sections), extras),
        num_extras=sum(extras.values()),
    )
    if not write_section(store, len(sections), section):
        raise RuntimeError(
            f"Another command has just added images to {store.uri}, nothing was added here. Wait "
            "for it to end and run this command again."
        )


def missing_rectangles(
    store: Store,
    sections: Sequence[Section],
    kept: Sequence[Caption],
    images_per_caption: int,
) -> list[tuple[tuple[int, list[Caption], int], tuple[int, int]]]:
    """(first caption, captions brought, number of captions), (first k, end k) of what lacks."""
    stored = read_captions(store, sections) if sections else []
    asked = {caption.caption_id: caption for caption in kept}
    lost = [caption for caption in stored if asked.get(caption.caption_id) != caption]
    if lost:
        raise ValueError(
            f"{store.uri} holds {len(stored)} captions, and {len(lost)} of them are not among "
            f"those asked for, or changed (first: {lost[0].caption_id}). A run only grows: ask for "
            "the same captions and more, or choose another output folder."
            f"{fresh_start_hint(store)}"
        )
    missing, repaired = [], any(section.extras_key for section in sections)
    for section in sections:
        if section.captions_key:
            start, end = section.first_caption, section.first_caption + section.num_captions
            made = max(
                other.first_k + other.num_k
                for other in sections
                if not other.extras_key
                and other.first_caption <= start
                and end <= other.first_caption + other.num_captions
            )
            if made > images_per_caption:
                raise ValueError(
                    f"{store.uri} holds another run. Differences: synthesis.images_per_caption: "
                    f"{made} there, {images_per_caption} here. A run only grows: ask for at least "
                    f"{made}, or choose another output folder.{fresh_start_hint(store)}"
                )
            require(
                made == images_per_caption or not repaired,
                f"{store.uri} was repaired: it cannot get more images of every caption, got "
                f"images_per_caption {images_per_caption} where it has {made}. More captions are "
                "possible.",
            )
            if made < images_per_caption:
                missing.append(((start, [], end - start), (made, images_per_caption)))
    known = {caption.caption_id for caption in stored}
    new = [caption for caption in kept if caption.caption_id not in known]
    if new:
        missing.append(((len(stored), new, len(new)), (0, images_per_caption)))
    return missing
