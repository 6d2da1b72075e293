"""Synthesis of a whole run: a request, its run and its workers; more images of some captions, or
other images of all.

Owns the order of things. What an image looks like is decided in `t2ipal.diffusion`, what a shard
holds in `plans`, what is left to do in `completion`, and where it runs by whoever hands in the
workers.
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial

from t2ipal.config import differences, from_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.identity import identify_model, pinned
from t2ipal.store import (
    Run,
    RunSettings,
    Store,
    fresh_start_hint,
    open_run,
    read_manifest,
    read_settings,
)
from t2ipal.synthesis.completion import SynthesisSummary, complete_run
from t2ipal.synthesis.growth import record_extras, record_request
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest
from t2ipal.synthesis.worker import (
    AfterCommitFactory,
    SynthesizerFactory,
    Workers,
    in_process,
    synthesizer_factory,
)

MODEL_NAMES = ("pipeline", "revision", "unet_weights", "vae")
"""The fields of a SynthesisConfig that name its model."""


def synthesize(
    store: Store,
    request: SynthesisRequest,
    execution: ExecutionConfig | None = None,
    *,
    workers: Workers = in_process,
    factory: SynthesizerFactory | None = None,
    after_commit: AfterCommitFactory | None = None,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes and stores every image of the request; finished shards are skipped.

    Args:
        store: home of the run; the workers must reach it too.
        request: what to make.
        execution: how many workers, and when to give up.
        workers: who makes the shards: `in_process`, or `t2ipal.engine.pool.on_ray`. Both store the
            same bytes.
        factory: makes a worker's synthesizer; None is `t2ipal.diffusion.synthesizer.Synthesizer`.
        after_commit: what a worker does with the images of each shard that it has committed, such
            as taking their features (`t2ipal.features.extraction.extracting`); it changes none.
        progress: show a bar with images, rate, failures and time left.

    Raises:
        FileNotFoundError: the pipeline, or a file in it, is missing.
        ValueError: the store holds another run, or one of another model.
        RuntimeError: more samples failed than `max_failed_fraction` allows, or a worker could not
            load its pipeline.
    """
    start, execution = time.monotonic(), execution or ExecutionConfig()
    model = None if factory else identify_model(request.config)
    loaded = synthesizer_factory(model, factory)
    # What the workers load: the request's own words, which may differ from those of the run.
    work = partial(workers, store, request.config, execution, loaded, after_commit)
    request, model = _same_model(store, request, model)
    settings, captions = request.settings(model), request.captions
    open_run(store, settings, {"synthesis": dataclasses.asdict(type(request.config)())})
    record_request(
        store, captions.kept, captions.rejected,
        request.config.images_per_caption, request.images_per_shard,
    )  # fmt: skip
    return complete_run(store, settings, execution, work, progress, start)


def _same_model(
    store: Store, request: SynthesisRequest, model: Mapping[str, str] | None
) -> tuple[SynthesisRequest, Mapping[str, str] | None]:
    """The request in the words of the run that the store holds, and what is kept of its model.

    One model has several names: a folder moves, a branch and a tag are a commit. A run from before
    models were kept has none.

    Raises:
        ValueError: the same names stand for another model than when the run was begun.
    """
    if model is None:
        return request, model
    try:
        begun = read_settings(store)
    except FileNotFoundError:
        return request, model
    names = {name: begun.synthesis.get(name) for name in MODEL_NAMES}
    if begun.model is None:
        return request, None
    if begun.model == model:
        config = dataclasses.replace(request.config, **names)
        return dataclasses.replace(request, config=config), model
    same_names = all(getattr(request.config, name) == value for name, value in names.items())
    if same_names:
        raise ValueError(
            f"{store.uri} holds images of another model. Differences: "
            f"{'; '.join(differences(model, begun.model, 'model.'))}. To go on, ask for that "
            "commit (revision, or owner/name@commit in vae and unet_weights) or bring back those "
            f"files; else choose another output folder.{fresh_start_hint(store)}"
        )
    return request, model


def add_images(
    store: Store,
    extras: Mapping[int, int],
    execution: ExecutionConfig | None = None,
    *,
    workers: Workers = in_process,
    factory: SynthesizerFactory | None = None,
    after_commit: AfterCommitFactory | None = None,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes more images of some captions of a finished run, and what an earlier call left undone.

    Args:
        store: home of the run.
        extras: position of a caption -> how many more images it gets; empty: only what is undone.
        execution: as for `synthesize`, like all that follows.
        workers: who makes them.
        factory: makes a worker's synthesizer.
        after_commit: what a worker does with the images of each shard.
        progress: show a bar.

    Raises:
        FileNotFoundError: the run was never finished.
        RuntimeError: as `synthesize`.
    """
    start, execution = time.monotonic(), execution or ExecutionConfig()
    settings = read_manifest(store).settings
    config, model = from_dict(SynthesisConfig, settings.synthesis), settings.model
    if model and not factory:
        pinned(config, model)  # raises before anything is written
    if extras:
        record_extras(store, extras, settings.images_per_shard)
    loaded = synthesizer_factory(model, factory)
    work = partial(workers, store, config, execution, loaded, after_commit)
    return complete_run(store, settings, execution, work, progress, start)


def synthesize_again(
    run: Run,
    store: Store,
    settings: RunSettings,
    execution: ExecutionConfig | None = None,
    *,
    workers: Workers = in_process,
    factory: SynthesizerFactory | None = None,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes as many images of each of a run's captions with other settings, as a run of its own.

    Args:
        run: whose captions, and whose model, whatever its name stands for by now.
        store: home of the other run.
        settings: of the other run.
        execution: as for `synthesize`, like all that follows.
        workers: who makes them.
        factory: makes a worker's synthesizer.
        progress: show a bar.

    Raises:
        FileNotFoundError: a file of the model is missing.
        ValueError: the model is another one, or `store` holds another run.
        RuntimeError: as `synthesize`.
    """
    start, execution = time.monotonic(), execution or ExecutionConfig()
    config, model = from_dict(SynthesisConfig, settings.synthesis), settings.model
    if model and not factory:
        pinned(config, model)  # raises before anything is written
    open_run(store, settings, {"synthesis": dataclasses.asdict(SynthesisConfig())})
    images_per_caption = run.settings.images_per_caption
    record_request(store, run.captions, (), images_per_caption, settings.images_per_shard)
    loaded = synthesizer_factory(model, factory)
    work = partial(workers, store, config, execution, loaded, None)
    return complete_run(store, settings, execution, work, progress, start)
