"""Synthesis of a whole run: a request and its run, workers, more images, one image again.

Owns the order of things. What an image looks like is decided by `t2ipal.synthesis`, what is
stored by `t2ipal.engine.plans` and `t2ipal.store`, where it runs by `t2ipal.engine.pool`,
what is left to do by `t2ipal.engine.carrying_out`.
"""

import collections
import dataclasses
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from t2ipal.captions import FilterResult, Vocabulary
from t2ipal.config import differences, fingerprint, from_dict, require, to_dict
from t2ipal.engine.carrying_out import Counts, SynthesisSummary, Work, carry_out
from t2ipal.engine.growth import plan_of_shard, record_extras, record_request
from t2ipal.engine.plans import ShardPlan, ShardWorker, SynthesizerFactory, exact_synthesizer
from t2ipal.engine.pool import RunConfig, work_on_pool
from t2ipal.identity import identify_model, pinned
from t2ipal.store import (
    Store,
    how_to_begin_anew,
    open_run,
    read_encoded_images,
    read_json,
    read_manifest,
    read_marker,
    read_settings,
)
from t2ipal.synthesis import SynthesisConfig

MODEL_NAMES = ("pipeline", "revision", "unet_weights", "vae")
"""The fields of a SynthesisConfig that name its model."""
NUMBER = "([0-9]{5}|[1-9][0-9]{5,})"
KEY = re.compile(f"{NUMBER}(-retry[1-9][0-9]*)?-{NUMBER}")
"""Of a sample, as `ShardWorker` writes it."""


@dataclass(frozen=True)
class SynthesisRequest:
    """What is to be synthesized: it alone decides what the store will hold."""

    config: Any
    """A `t2ipal.synthesis.SynthesisConfig`."""
    vocabulary: Vocabulary
    captions: FilterResult
    """The kept ones are drawn, in their order; the rejected ones are stored with their reasons."""
    images_per_shard: int = 128
    """Images of one shard at most: small enough to lose on a crash, large enough to keep objects
    few. Those of one caption stay together."""

    def __post_init__(self):
        require(
            len(self.captions.kept) > 0,
            "No caption names a class of the vocabulary: nothing to draw.",
        )
        size = self.images_per_shard
        require(size > 0, f"images_per_shard must be > 0, got {size}.")
        counts = collections.Counter(caption.caption_id for caption in self.captions.kept)
        twice = [name for name, count in counts.items() if count > 1]
        require(not twice, f"Caption ids must be unique, got {twice[:3]} more than once.")

    def settings(self) -> dict[str, Any]:
        """Everything that decides what the run holds, as plain values."""
        kept = [[c.caption_id, c.text, list(c.labels)] for c in self.captions.kept]
        return {
            **self.fixed_settings(),
            "synthesis": to_dict(self.config),
            "num_captions": len(kept),
            "captions": fingerprint(kept),
        }

    def fixed_settings(self) -> dict[str, Any]:
        """The plain values of config.json: those that a run keeps while it grows."""
        synthesis = to_dict(self.config)
        del synthesis["images_per_caption"]
        return {
            "synthesis": synthesis,
            "vocabulary": self.vocabulary.name,
            "class_names": list(self.vocabulary.class_names),
            "prompt_names": list(self.vocabulary.prompt_names),
            "images_per_shard": self.images_per_shard,
        }


def synthesize(
    store: Store,
    request: SynthesisRequest,
    run: RunConfig | None = None,
    *,
    factory: SynthesizerFactory | None = None,
    features: Any = None,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes and stores every image of the request on Ray's workers; finished shards are skipped.

    Args:
        store: home of the run; the workers must reach it too.
        request: what to make.
        run: where to make it.
        factory: makes a worker's synthesizer; None is `t2ipal.synthesis.Synthesizer`.
        features: a `t2ipal.features.BackboneConfig`, whose features of each shard the worker that
            made it stores too, as `extract_run` would; it changes no image. None: none.
        progress: show a bar with images, rate, failures and time left.

    Raises:
        FileNotFoundError: the pipeline, or a file in it, is missing.
        ValueError: the store holds another run, or one of another model.
        RuntimeError: more samples failed than `max_failed_fraction` allows, or a worker could not
            load its pipeline.
    """
    run = run or RunConfig()
    model = None if factory else identify_model(request.config)
    work = _on_ray(store, request.config, run, _loading(model, factory), features)
    return _synthesize(store, request, model, run, work, progress)


def synthesize_locally(
    store: Store,
    request: SynthesisRequest,
    run: RunConfig | None = None,
    *,
    factory: SynthesizerFactory | None = None,
    features: Any = None,
    progress: bool = False,
) -> SynthesisSummary:
    """As `synthesize`, in this process and without Ray; stores the same bytes."""
    model = None if factory else identify_model(request.config)
    work = _here(store, request.config, _loading(model, factory), features)
    return _synthesize(store, request, model, run or RunConfig(), work, progress)


def remake(
    store: Store, key: str, factory: SynthesizerFactory | None = None
) -> tuple[dict[str, Any], bytes, bool | None, list[str]]:
    """Makes one stored sample again, alone, from what the store says of it.

    On the same kind of device it comes out byte for byte: its micro-batch is made whole.

    Args:
        store: home of the run.
        key: of the sample, as in its tar, e.g. "00003-00017".
        factory: makes the synthesizer; None is `t2ipal.synthesis.Synthesizer`.

    Returns:
        The sample's row, its image encoded, whether these are the bytes that are stored (None where
        none are), and where they are not, which versions and devices differ.

    Raises:
        ValueError: the run has no such sample, or made its shard from another plan.
        RuntimeError: the sample fails.
    """
    settings = read_settings(store)
    synthesis, size = settings.get("synthesis"), settings.get("images_per_shard")
    if not isinstance(synthesis, Mapping) or not isinstance(size, int):
        raise ValueError(
            f"config.json in {store.uri} is damaged. Remove it and run jobs/synthesize.py again."
        )
    shard, _, place = key.rpartition("-")
    plan = plan_of_shard(store, settings, shard) if KEY.fullmatch(key) else None
    require(
        plan is not None and int(place) < plan.num_samples,
        f"No sample {key!r} in {store.uri}. A sample is named as in its tar, such as 00003-00017.",
    )
    assert plan is not None
    marker = read_marker(store, shard, plan.identity())
    config = from_dict(SynthesisConfig, synthesis)
    worker = ShardWorker(store, config, _loading(settings.get("model"), factory))
    row, image = worker.remake(plan, int(place))
    if image is None:
        raise RuntimeError(f"Sample {key} failed again: {row['reason']}")
    if marker is None:
        return row, image, None, []
    stored = {other["key"]: data for other, data in read_encoded_images(store, shard)}
    if stored.get(key, image) == image:
        return row, image, True if key in stored else None, []
    there = marker.get("versions", {})  # older ones say less
    here = {name: worker.versions.get(name) for name in there}
    return row, image, False, differences(here, there)


def _synthesize(
    store: Store,
    request: SynthesisRequest,
    model: Mapping[str, str] | None,
    run: RunConfig,
    work: Work,
    progress: bool,
) -> SynthesisSummary:
    start = time.monotonic()
    request, facts = _same_model(store, request, model)
    settings, captions = {**request.settings(), **facts}, request.captions
    defaults = {"synthesis": dataclasses.asdict(type(request.config)())}
    open_run(store, {**request.fixed_settings(), **facts}, defaults)
    record_request(
        store, captions.kept, captions.rejected,
        settings["synthesis"]["images_per_caption"], request.images_per_shard,
    )  # fmt: skip
    return carry_out(store, settings, run, work, progress, start)


def _same_model(
    store: Store, request: SynthesisRequest, model: Mapping[str, str] | None
) -> tuple[SynthesisRequest, dict[str, Any]]:
    """The request in the words of the run that the store holds, and what is kept of its model.

    One model has several names: a folder moves, a branch and a tag are a commit. A run from before
    models were kept has none.

    Raises:
        ValueError: the same names stand for another model than when the run was begun.
    """
    if model is None:
        return request, {}
    facts = {"model": dict(model)}
    try:
        begun = read_json(store, "config.json")
    except FileNotFoundError:
        return request, facts
    if "model" not in begun:
        return request, {}
    names = {name: begun["synthesis"].get(name) for name in MODEL_NAMES}
    if begun["model"] == model:
        config = dataclasses.replace(request.config, **names)
        return dataclasses.replace(request, config=config), facts
    same_names = all(getattr(request.config, name) == value for name, value in names.items())
    if same_names:
        raise ValueError(
            f"{store.uri} holds images of another model. Differences: "
            f"{'; '.join(differences(model, begun['model'], 'model.'))}. To go on, ask for that "
            "commit (revision, or owner/name@commit in vae and unet_weights) or bring back those "
            f"files; else choose another output folder.{how_to_begin_anew(store)}"
        )
    return request, facts


def _loading(
    model: Mapping[str, str] | None, factory: SynthesizerFactory | None
) -> SynthesizerFactory | None:
    """What makes a worker's synthesizer, of this model where one is known."""
    return factory or (partial(exact_synthesizer, model=model) if model else None)


def add_images(
    store: Store,
    extras: Mapping[int, int],
    run: RunConfig | None = None,
    *,
    factory: SynthesizerFactory | None = None,
    features: Any = None,
    in_process: bool = False,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes more images of some captions of a finished run, and what an earlier call left undone.

    Args:
        store: home of the run.
        extras: position of a caption -> how many more images it gets; empty: only what is undone.
        run: where to make them.
        factory: makes a worker's synthesizer; None is `t2ipal.synthesis.Synthesizer`.
        features: as for `synthesize`.
        in_process: in this process and without Ray.
        progress: show a bar.

    Raises:
        FileNotFoundError: the run was never finished.
        RuntimeError: as `synthesize`.
    """
    start, settings, run = time.monotonic(), read_manifest(store)["settings"], run or RunConfig()
    config, model = from_dict(SynthesisConfig, settings["synthesis"]), settings.get("model")
    if model and not factory:
        pinned(config, model)  # raises before anything is written
    factory = _loading(model, factory)
    if extras:
        record_extras(store, extras, settings["images_per_shard"])
    if in_process:
        work = _here(store, config, factory, features)
    else:
        work = _on_ray(store, config, run, factory, features)
    return carry_out(store, settings, run, work, progress, start)


def _on_ray(
    store: Store, config: Any, run: RunConfig, factory: SynthesizerFactory | None, features: Any
) -> Work:
    return lambda plans: work_on_pool(plans, store, config, run, factory, features)


def _here(store: Store, config: Any, factory: SynthesizerFactory | None, features: Any) -> Work:
    def work(plans: list[ShardPlan]) -> Counts:
        worker = ShardWorker(store, config, factory, features=features)
        for plan in plans:
            yield worker(plan)

    return work
