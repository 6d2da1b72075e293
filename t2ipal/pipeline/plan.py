"""What a pipeline will do, before it does anything: shards, images, hours, dollars, bytes.

Reads captions and the run's store; loads no model, no torch and no Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2ipal.captions import FilterResult
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.pipeline.prices import LOCAL, PriceTable
from t2ipal.pipeline.sizes import caption_bytes, feature_bytes, image_bytes
from t2ipal.store import (
    Marker,
    Store,
    committed_shards,
    count_samples,
    describe_duration,
    read_captions,
    read_sections,
)
from t2ipal.synthesis.growth import missing_rectangles
from t2ipal.synthesis.plans import captions_per_shard

OWN_RATE = "measured in this run"


@dataclass(frozen=True)
class Cost:
    """What is left to draw, on machines of one type."""

    machine: str
    images_per_hour: float | None
    """Of one GPU, or of a whole machine without one; None: not known."""
    source: str
    hours: float | None
    """Of such GPUs or machines, all together."""
    dollars: float | None
    """None: hours or price are not known."""


@dataclass(frozen=True)
class Plan:
    """The numbers of a pipeline."""

    num_captions: int
    num_rejected: int
    num_images: int
    """That were or are asked for."""
    num_images_done: int
    """Samples that are there, failed ones included."""
    num_shards: int
    num_shards_done: int
    bytes_of: Mapping[str, int | None]
    """captions, images, features, in the end; None: not known."""
    formulas: tuple[str, ...]
    """How the bytes come about."""
    costs: tuple[Cost, ...]

    @property
    def num_images_left(self) -> int:
        """That are to be drawn."""
        return self.num_images - self.num_images_done

    def least_dollars(self, on_cluster: bool) -> float | None:
        """Of drawing them on the cheapest machines; None: of none is it known.

        Args:
            on_cluster: whether a machine of one's own, which may cost nothing, does not count.
        """
        if not self.num_images_left:
            return 0.0
        costs = [cost for cost in self.costs if not (on_cluster and cost.machine == LOCAL)]
        return min((cost.dollars for cost in costs if cost.dollars is not None), default=None)


def plan_images(
    store: Store,
    captions: FilterResult,
    config: SynthesisConfig,
    images_per_shard: int,
    backbone: BackboneConfig | None,
    prices: PriceTable,
) -> Plan:
    """The plan of a synthesis that draws some captions into a store.

    Args:
        store: home of the run, which may hold a part of it.
        captions: that passed the filter, and that did not.
        config: how images are made.
        images_per_shard: of one stored shard.
        backbone: whose features are stored too; None: none.
        prices: and rates.

    Raises:
        ValueError: the store holds another run.
    """
    sections, markers = read_sections(store), committed_shards(store)
    per_caption = config.images_per_caption
    missing = missing_rectangles(store, sections, captions.kept, per_caption)
    num_samples = sum(section.num_samples for section in sections)
    num_shards = sum(section.num_shards for section in sections)
    for (_, _, num_captions), (first_k, end_k) in missing:
        num_samples += num_captions * (end_k - first_k)
        num_shards += -(-num_captions // captions_per_shard(images_per_shard, end_k - first_k))
    done, _ = count_samples(markers)
    bytes_of, formulas = _bytes(captions, num_samples, config, markers, backbone, prices)
    return Plan(
        len(captions.kept), len(captions.rejected), num_samples, done, num_shards,
        sum("-retry" not in marker.shard for marker in markers), bytes_of, formulas,
        _costs(num_samples - done, config, markers, prices),
    )  # fmt: skip


def plan_of_stored(store: Store, backbone: BackboneConfig | None, prices: PriceTable) -> Plan:
    """The plan of a pipeline that draws nothing, on a run that has its images."""
    sections, markers = read_sections(store), committed_shards(store)
    captions = FilterResult(read_captions(store, sections) if sections else [], [])
    done, _ = count_samples(markers)
    config = SynthesisConfig()  # its image size is not asked for, since there are shards
    bytes_of, formulas = _bytes(captions, done, config, markers, backbone, prices)
    shards = sum("-retry" not in marker.shard for marker in markers)
    return Plan(
        len(captions.kept), 0, done, done, shards, shards, bytes_of, formulas,
        _costs(0, config, markers, prices),
    )  # fmt: skip


def _bytes(
    captions: FilterResult,
    num_images: int,
    config: SynthesisConfig,
    markers: Sequence[Marker],
    backbone: BackboneConfig | None,
    prices: PriceTable,
) -> tuple[dict[str, int | None], tuple[str, ...]]:
    known: dict[str, int | None] = {"captions": caption_bytes([*captions.kept, *captions.rejected])}
    formulas = ["captions: their texts and ids"]
    model = prices.models.get(config.pipeline)
    size_px = config.image_size_px or (model and model.image_size_px)
    known["images"] = None
    if num_done := sum(marker.num_rows for marker in markers):
        each = sum(m.tar.size_bytes + m.sidecar.size_bytes for m in markers) / num_done
        known["images"] = round(each * num_images)
        formulas.append(f"images: {each:,.0f} bytes an image, {OWN_RATE}")
    elif size_px:
        each, formula = image_bytes(config, size_px)
        known["images"] = round(each * num_images)
        formulas.append(f"images: {formula}")
    else:
        formulas.append("images: not known; give image_size_px, or the model in the price table")
    if backbone is None:
        return known, tuple(formulas)
    sizes = feature_bytes(backbone)
    known["features"] = None
    if sizes is None:
        formulas.append(f"features: not known, no shape of {backbone.model} is at hand")
    else:
        of_image, of_caption, formula = sizes
        known["features"] = round(of_image * num_images + of_caption * len(captions.kept))
        formulas.append(f"features: {formula}")
    return known, tuple(formulas)


def _costs(
    num_images: int, config: SynthesisConfig, markers: Sequence[Marker], prices: PriceTable
) -> tuple[Cost, ...]:
    """For each type that can draw: those with GPUs, and those that a rate is known of."""
    num_done, worked_s = sum(m.num_rows for m in markers), sum(m.seconds for m in markers)
    costs = []
    for name, machine in prices.machines.items():
        rated = prices.images_per_hour(name, config)
        if rated is None and not machine.gpus:
            continue
        if num_done and worked_s:
            rated = 3600 * num_done / worked_s, f"{OWN_RATE}, by one worker"
        rate, source = rated or (None, "not known: no rate in the price table")
        hours = None if rate is None else num_images / rate
        dollars = None
        if hours is not None and machine.dollars_per_hour is not None:
            dollars = hours * machine.dollars_per_hour / max(machine.gpus, 1)
        costs.append(Cost(name, rate, source, hours, dollars))
    return tuple(costs)


def describe_plan(plan: Plan, counts: Sequence[int]) -> str:
    """The plan as lines to read.

    Args:
        plan: to tell.
        counts: GPUs, or machines without one, to tell the wall time of.
    """
    lines = [
        f"captions  {plan.num_captions:,} kept, {plan.num_rejected:,} rejected",
        f"images    {plan.num_images:,}: {plan.num_images_done:,} done, "
        f"{plan.num_images_left:,} left",
        f"shards    {plan.num_shards:,}: {plan.num_shards_done:,} done, "
        f"{plan.num_shards - plan.num_shards_done:,} left",
        "stored    " + ", ".join(f"{name} {_size(size)}" for name, size in plan.bytes_of.items()),
        *(f"          {formula}" for formula in plan.formulas),
        "left to draw, without loading, idle machines, lost shards and the other stages:",
    ]
    walls = [f"on {count}" for count in counts]
    rows = [["machine", "images/h", "hours", *walls, "dollars", "rate from"]]
    for cost in plan.costs:
        hours = cost.hours
        times = ["?" if hours is None else describe_duration(3600 * hours / n) for n in counts]
        rows.append(
            [
                cost.machine,
                "?" if cost.images_per_hour is None else f"{cost.images_per_hour:,.0f}",
                "?" if hours is None else f"{hours:,.2f}",
                *times,
                "?" if cost.dollars is None else f"{cost.dollars:,.2f}",
                cost.source,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"  {line}" for line in table)])


def _size(size: int | None) -> str:
    return "not known" if size is None else f"{size / 2**20:,.1f} MiB"
