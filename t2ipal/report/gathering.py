"""What a page about a run shows, put together from its parts and its images.

A run need not be finished, trained or evaluated: what is not there is left out, and the page says
so. Draws nothing: `page` does.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from t2ipal.config import require, to_dict
from t2ipal.report.config import ReportConfig
from t2ipal.report.contents import Counts, Curve, Report, Trial
from t2ipal.report.drawn import look_at_images
from t2ipal.report.finding import Parts, Trained, place_of
from t2ipal.report.heatmaps import heatmap_examples
from t2ipal.report.page import render_report
from t2ipal.search.results import find_searches, read_trials
from t2ipal.store import Run, Store, count_rejected, join_key
from t2ipal.training.recipes import METHODS
from t2ipal.training.runs import FINISHED, load_history

REPORT = "report.html"
NOT_CHOSEN = "not chosen"
"""The filter's reason for captions that passed it and were not needed."""
PACKAGES = ("torch", "diffusers", "open_clip_torch", "ray", "numpy")


def gather_report(
    run: Run,
    parts: Parts,
    config: ReportConfig,
    *,
    seconds: Mapping[str, float] | None = None,
    commands: Sequence[str] = (),
) -> Report:
    """Everything that the page of a run shows.

    Args:
        run: as far as it is.
        parts: of the page that are there.
        config: how much is shown.
        seconds: of each stage, where they are known.
        commands: that make the page again.

    Raises:
        ValueError: a part of the run is damaged, or the evaluation is of other classes.
    """
    trained, measured, test = parts.trained, parts.measured, parts.test
    names = run.settings.class_names
    require(
        measured is None or measured.class_names == names,
        f"The evaluation must be of the classes of {run.store.uri}. Give the one of this run.",
    )
    missing = [*_unfinished(run), *parts.missing]
    sheet, judge = [], None
    try:
        sheet, judge = look_at_images(run, config)
    except FileNotFoundError as error:
        missing.append(f"Images are left out: {error}")
    results = measured.results if measured else ()
    baseline = METHODS["tai_dpt"].title
    shown = trained.shown(measured) if trained else None
    return Report(
        title="T2I-PAL: multi-label recognition without a labelled photograph",
        subtitle=_subtitle(run, parts),
        results=results,
        class_names=names,
        baseline=baseline if baseline in [result.name for result in results] else None,
        judge=judge,
        contact_sheet=sheet,
        heatmaps=heatmap_examples(shown, test, config.num_heatmaps) if shown and test else (),
        curves=_curves(trained) if trained else (),
        trials=_trials(run.store),
        counts=_counts(run, measured.num_images if measured else 0),
        seconds=seconds or {},
        settings=_settings(run, parts),
        versions={package: version(package) for package in PACKAGES},
        commands=commands,
        notes=measured.notes if measured else (),
        measure=measured.measure if measured else "mAP",
        missing=missing,
    )


def page_place(
    run: Store, output: str | None, endpoint_url: str | None = None
) -> tuple[Store, str]:
    """Store and key of a run's page, once it is known that it can be written.

    Args:
        run: home of the run, where the page goes unless `output` names a place.
        output: of the page, ending in .html, or a folder for it.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        OSError: it cannot be written there.
    """
    place, key = place_of(run, REPORT, output, endpoint_url)
    try:
        place.require_writable(key)
    except OSError as error:
        raise OSError(
            f"No page can be written in {place.uri}: name another place with --output. {error}"
        ) from error
    return place, key


def write_report(report: Report, place: Store, key: str = REPORT) -> str:
    """Writes the page; returns where it is."""
    # A name may hold half a character, which JSON and YAML can write and UTF-8 cannot.
    place.write(key, render_report(report).encode(errors="replace"))
    return f"{place.uri}/{key}"


def _unfinished(run: Run) -> list[str]:
    """A sentence where images are still to come."""
    if run.num_missing:
        asked = sum(section.num_shards for section in run.sections)
        return [
            f"The run is not finished: it lacks {run.num_missing:,} of {asked:,} shards, and the "
            "page shows the others. Run jobs/synthesize.py again with the options of the last time."
        ]
    if run.manifest.num_images == 0:
        return [f"No image is there: {run.manifest.num_failed:,} samples failed."]
    return []


def _subtitle(run: Run, parts: Parts) -> str:
    pipeline = run.settings.synthesis.get("pipeline", "an unnamed pipeline")
    words = [
        f"{run.settings.num_captions} captions",
        f"{run.manifest.num_images} synthetic images from {pipeline}",
    ]
    if parts.trained:
        words.append(f"backbone {parts.trained.backbone.config.model}")
    if parts.measured:
        words.append(f"measured on {parts.measured.num_images} images of {parts.measured.test_set}")
    return f"{', '.join(words)}."


def _settings(run: Run, parts: Parts) -> dict[str, Any]:
    settings: dict[str, Any] = {"synthesis": dict(run.settings.synthesis)}
    if parts.trained:
        settings["backbone"] = to_dict(parts.trained.backbone.config)
        settings["method"] = to_dict(parts.trained.shown(parts.measured).config)
    return settings


def _counts(run: Run, num_test_images: int) -> Counts:
    rejected = count_rejected(run.store)
    refused = {reason: n for reason, n in rejected.items() if reason != NOT_CHOSEN}
    read = run.settings.num_captions + sum(rejected.values())
    return Counts(
        captions_read=read,
        captions_kept=read - sum(refused.values()),
        captions_rejected=refused,
        captions_used=run.settings.num_captions,
        images=run.manifest.num_images,
        images_failed=run.manifest.num_failed,
        test_images=num_test_images,
    )


def _curves(trained: Trained) -> list[Curve]:
    """The loss of every trained method over its epochs, the first seed of each."""
    series = []
    for method, by_seed in trained.recognizers.items():
        folder = join_key(trained.folder, f"{method}-seed{next(iter(by_seed))}")
        finished = trained.store.exists(join_key(folder, FINISHED))
        history = load_history(trained.store, folder)[0] if finished else ()
        if history:
            epochs = [record.epoch + 1.0 for record in history]
            title = METHODS[method].title if method in METHODS else method
            series.append((title, epochs, [record.loss for record in history]))
    return [Curve("Mean loss of each epoch, first seed", "epoch", "loss", series)] if series else []


def _trials(store: Store) -> list[Trial]:
    """The trials of the run's first search; one that did not end has no score."""
    trials = []
    searches = (read_trials(store, folder) for folder in find_searches(store))
    for trial in next((found for found in searches if found), []):
        score = trial.validation_mAP if trial.status == "ok" else None
        values = {
            name: value if isinstance(value, int | float | str) else str(value)
            for name, value in trial.values.items()
        }
        trials.append(Trial(values, math.nan if score is None else score))
    return trials
