"""Guidance and steps as dimensions: for each of their values, a set of images of the same captions.

The run's own set serves the values that it was made with. Another set is a run of its own in the
folder RUN/variants/guidance_scale=3.0: the run's captions in their order, its model and its seeds.
It is resumed, read and described like every run, and later searches find it again.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2ipal.config import differences, from_dict, override, require, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.pools import PoolConfig
from t2ipal.search.setting import OF_IMAGES, Setting, values_of_images
from t2ipal.search.space import SearchConfig, draw_settings
from t2ipal.store import (
    Run,
    RunSettings,
    Store,
    committed_shards,
    count_samples,
    describe_duration,
    read_captions,
    read_manifest,
    read_run,
    read_sections,
    read_settings,
)
from t2ipal.synthesis.making import synthesize_again
from t2ipal.synthesis.request import ExecutionConfig
from t2ipal.synthesis.worker import SynthesizerFactory, Workers, in_process

RENDERED = "rendered"
"""The pipeline of images that the world draws itself."""
FOLDER = "variants"
"""In a run, of its variants."""


@dataclass(frozen=True)
class Variant:
    """One set of images, a run."""

    store: Store
    """Home of the run."""
    values: Mapping[str, Any]
    """Of `t2ipal.search.setting.NAMES`."""
    num_images: int
    """That it has in the end, those that fail included."""
    num_missing: int
    """Of these, that are still to be drawn; 0 for the run's own."""
    is_own: bool
    """Whether it is the run that is searched."""


@dataclass(frozen=True)
class Variants:
    """The sets of images that a search needs."""

    setting: Setting
    """That trials start from."""
    run: Run
    """That is searched."""
    sets: tuple[Variant, ...]
    """The run's own first, where a trial takes it."""

    @property
    def num_missing(self) -> int:
        """Images to be drawn before the search can start."""
        return sum(each.num_missing for each in self.sets)

    @property
    def worker_seconds(self) -> float | None:
        """That one worker takes to draw them, after what the run's own took; None: unknown."""
        num_done, _ = count_samples(self.run.markers)
        worked_s = sum(marker.seconds for marker in self.run.markers)
        if not worked_s:
            return None
        own = from_dict(SynthesisConfig, self.run.settings.synthesis)
        passes = [_passes(dataclasses.replace(own, **s.values)) * s.num_missing for s in self.sets]
        return worked_s / num_done / _passes(own) * sum(passes)

    def of(self, values: Mapping[str, Any]) -> Store:
        """The run whose images a trial of these values, by dotted names, learns from."""
        wanted = values_of_images(self.setting.synthesis, values)
        return next(each.store for each in self.sets if each.values == wanted)

    def describe(self) -> str:
        """What is there, what is to be drawn, and how long that takes; to read before it starts."""
        lines = [f"Images of the run's {self.run.settings.num_captions:,} captions:"]
        for each in self.sets:
            name = ", ".join(f"{name} {value}" for name, value in each.values.items())
            state = "the run's own" if each.is_own else "there"
            if each.num_missing:
                state = f"{each.num_missing:,} of {each.num_images:,} to draw"
            lines.append(f"  {name}: {state}")
        if any(section.extras_key for section in self.run.sections):
            lines.append("  The run's own has images of a repair too, which no other set gets.")
        if self.num_missing:
            seconds = self.worker_seconds
            time = "an unknown time" if seconds is None else f"about {describe_duration(seconds)}"
            lines.append(f"{self.num_missing:,} images to draw, which takes one worker {time}.")
        return "\n".join(lines)


def plan_variants(
    store: Store, setting: Setting, search: SearchConfig, max_images: int | None = None
) -> Variants:
    """Which sets of images the trials of a search need, and what is missing; draws nothing.

    Args:
        store: of the run that is searched.
        setting: that trials start from, with the run's `synthesis`.
        search: what is varied.
        max_images: new images at most; None: as many as are missing.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: values that no image can be made with, more new images than `max_images`, or a
            folder of a variant that holds something else.
    """
    require(max_images is None or max_images >= 0, f"max_images must be >= 0, got {max_images}.")
    run = read_run(store)
    varied = [d.path for d in search.dimensions if d.path in OF_IMAGES]
    require(
        not varied or setting.synthesis.pipeline != RENDERED,
        f"{' and '.join(varied)} changes nothing in a run of rendered images: leave it out.",
    )
    variants = [_variant(run, synthesis) for synthesis in _syntheses(setting, search)]
    variants.sort(key=lambda variant: not variant.is_own)
    plan = Variants(setting, run, tuple(variants))
    require(
        max_images is None or plan.num_missing <= max_images,
        f"The values of {' and '.join(OF_IMAGES)} need {plan.num_missing:,} new images, and "
        f"max_images allows {max_images}. Raise it, or vary fewer values. "
        f"{' '.join(plan.describe().split())}",
    )
    return plan


def synthesize_variants(
    variants: Variants,
    pool: PoolConfig | None = None,
    *,
    workers: Workers = in_process,
    factory: SynthesizerFactory | None = None,
    progress: bool = False,
) -> None:
    """Draws what is missing, one set after another; the same again goes on where it was left.

    Args:
        variants: as planned.
        pool: of the workers.
        workers: who draws: `in_process`, or `t2ipal.engine.pool.on_ray`.
        factory: makes a worker's synthesizer; None: that of the run's model.
        progress: show a bar for each set.

    Raises:
        FileNotFoundError: a file of the run's model is not here.
        ValueError: the model is another one by now.
        RuntimeError: too many images failed, or a worker could not load its model.
    """
    run = variants.run
    for variant in variants.sets:
        if variant.is_own:
            continue
        # A whole set never changes: trials may have learned from it.
        retry = variant.num_missing > 0
        execution = ExecutionConfig(**vars(pool or PoolConfig()), retry_failed=retry)
        try:
            synthesize_again(
                run, variant.store, _settings(run, variant.values), execution,
                workers=workers, factory=factory, progress=progress,
            )  # fmt: skip
        except RuntimeError as error:
            again = "run the same command again"  # which tries what failed, without an option
            advice = str(error).replace("add --retry-failed to make them again", again)
            raise RuntimeError(f"{variant.store.uri}: {advice}") from error
        captions = read_manifest(variant.store).settings.captions
        require(captions == run.settings.captions, _other_captions(variant.store))


def _syntheses(setting: Setting, search: SearchConfig) -> list[SynthesisConfig]:
    """Of all trials: those that will be drawn, where that is known, else every combination."""
    varied = [dimension for dimension in search.dimensions if dimension.path in OF_IMAGES]
    paths = [dimension.path for dimension in varied]
    if search.searcher == "optuna":
        rows = set(itertools.product(*(dimension.values for dimension in varied)))
    else:
        rows = {tuple(trial[path] for path in paths) for trial in draw_settings(search)}
    return [override(setting, dict(zip(paths, row))).synthesis for row in sorted(rows)]


def _variant(run: Run, synthesis: SynthesisConfig) -> Variant:
    own = from_dict(SynthesisConfig, run.settings.synthesis)
    values = values_of_images(synthesis, {})
    alike = dataclasses.replace(own, **values)
    other = differences(to_dict(synthesis), to_dict(alike), "synthesis.")
    require(
        not other,
        f"Of the images only {' and '.join(OF_IMAGES)} may differ from those of {run.store.uri}. "
        f"Differences: {'; '.join(other)}.",
    )
    num_images = run.settings.num_captions * run.settings.images_per_caption
    folder = ",".join(f"{name}={value}" for name, value in _changed(run, values).items())
    if not folder:
        return Variant(run.store, values, num_images, 0, is_own=True)
    store = Store(f"{run.store.uri}/{FOLDER}/{folder}", run.store.endpoint_url)
    num_missing = num_images - _num_there(run, store, values)
    return Variant(store, values, num_images, num_missing, is_own=False)


def _num_there(run: Run, store: Store, values: Mapping[str, Any]) -> int:
    """Images of a variant that are there, those that failed included.

    Raises:
        ValueError: they are of other settings or captions than the run's.
    """
    try:
        there = read_settings(store)
    except FileNotFoundError:
        return 0
    changed = differences(to_dict(_settings(run, values)), to_dict(there))
    require(
        not changed,
        f"{store.uri} holds other images than those of its name ({'; '.join(changed)}). Remove "
        "that folder: its images are drawn again.",
    )
    sections = read_sections(store)
    captions = read_captions(store, sections) if sections else []
    require(tuple(captions) == run.captions[: len(captions)], _other_captions(store))
    return count_samples(committed_shards(store))[0]


def _other_captions(store: Store) -> str:
    return (
        f"{store.uri} holds images of other captions than the run that it is a variant of. Remove "
        "that folder: its images are drawn again."
    )


def _settings(run: Run, values: Mapping[str, Any]) -> RunSettings:
    """Of the run's variant with these values."""
    settings = read_settings(run.store)
    synthesis = {**settings.synthesis, **_changed(run, values)}
    return dataclasses.replace(settings, synthesis=synthesis)


def _changed(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    own = values_of_images(from_dict(SynthesisConfig, run.settings.synthesis), {})
    return {name: value for name, value in values.items() if value != own[name]}


def _passes(synthesis: SynthesisConfig) -> float:
    """Of the UNet for an image: a guided step takes two."""
    guided = synthesis.guidance_until - synthesis.guidance_from
    return synthesis.num_inference_steps * (1 + (guided if synthesis.guidance_scale > 1 else 0))
