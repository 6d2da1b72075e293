"""What there is of a run beside its images: recognizers, an evaluation, a test set to draw on.

What is not there yet is left out, and a sentence says so. What is damaged is an error, and so is
what was asked for by name and is not there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from t2ipal.config import require
from t2ipal.evaluation.reading import named
from t2ipal.evaluation.results import EVALUATION
from t2ipal.evaluation.runs import (
    TRAINED,
    Recognizers,
    find_recognizers,
    load_same_backbone,
    trained_at,
)
from t2ipal.evaluation.test_sets import TestFeatures, load_test_set, see
from t2ipal.features.backbone import Backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.recognizer import Recognizer
from t2ipal.report.config import ReportSources
from t2ipal.report.heatmaps import rows_to_show
from t2ipal.report.measured import Measured, read_measured
from t2ipal.store import Store, store_and_key


@dataclass(frozen=True)
class Trained:
    """Recognizers of one backbone, and where they lie."""

    recognizers: Recognizers
    backbone: Backbone
    store: Store
    folder: str = TRAINED

    def shown(self, measured: Measured | None) -> Recognizer:
        """The one whose heatmaps are drawn: T2I-PAL's, or else that of the best method."""
        best_first = reversed(measured.methods) if measured else ()
        names = ("t2ipal", *best_first, *self.recognizers)
        name = next(name for name in names if name in self.recognizers)
        return next(iter(self.recognizers[name].values()))


@dataclass(frozen=True)
class Parts:
    """What a page can show beside images; None for what is not there."""

    trained: Trained | None
    measured: Measured | None
    test: TestFeatures | None
    missing: tuple[str, ...] = ()
    """A sentence for each part that is not there."""


def find_parts(
    run: Store,
    sources: ReportSources,
    backbone: BackboneConfig,
    num_heatmaps: int,
    endpoint_url: str | None = None,
) -> Parts:
    """Looks for the parts of a run's page.

    Args:
        run: home of the run.
        sources: where parts lie that are not in the run.
        backbone: of the recognizers.
        num_heatmaps: images of the test set that are wanted.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        FileNotFoundError: what `sources` names is not there.
        ValueError: a part is damaged, or the recognizers are of another backbone.
    """
    missing: list[str] = []
    place, folder = trained_at(run, sources.recognizers, endpoint_url)
    recognizers, trained, measured, test = None, None, None, None
    with _left_out("Losses and heatmaps", "recognizers", missing, sources.recognizers):
        recognizers = find_recognizers(place, folder)
    if recognizers is not None:
        clip, recognizers = load_same_backbone(place, recognizers, backbone, folder)
        trained = Trained(recognizers, clip, place, folder)
    place, key = place_of(run, EVALUATION, sources.evaluation, endpoint_url)
    with _left_out("Results", "evaluation", missing, sources.evaluation):
        measured = read_measured(place, key, trained and backbone.model)
    if trained is not None:
        asked_for = sources.test_set or sources.test_root
        with _left_out("Heatmaps", "", missing, asked_for, (OSError, ValueError)):
            test = _look_at_test_set(trained, measured, sources, num_heatmaps, endpoint_url)
        if test is not None and test.unreadable:
            missing.append(f"Some heatmaps are left out: {named(test.unreadable)}.")
    return Parts(trained, measured, test, tuple(missing))


@contextmanager
def _left_out(
    what: str,
    elsewhere: str,
    missing: list[str],
    asked_for: str | None,
    errors: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> Iterator[None]:
    """Makes a sentence of what is not there, unless a user asked for it.

    Args:
        what: the page lacks then.
        elsewhere: option that names another place of it; "" for none.
        missing: gets the sentence.
        asked_for: what a user gave; None: nothing.
        errors: that say that something is not there.
    """
    try:
        yield
    except errors as error:
        if asked_for is not None:
            raise
        hint = f" If they lie elsewhere, give --{elsewhere}." if elsewhere else ""
        missing.append(f"{what} are left out: {error}{hint}")


def place_of(
    run: Store, name: str, elsewhere: str | None, endpoint_url: str | None = None
) -> tuple[Store, str]:
    """Store and key of a file of a run, which may be in another folder or have another path."""
    if elsewhere is None:
        return run, name
    if elsewhere.lower().endswith(PurePosixPath(name).suffix):
        return store_and_key(elsewhere, endpoint_url)
    return Store(elsewhere, endpoint_url), name


def _look_at_test_set(
    trained: Trained,
    measured: Measured | None,
    sources: ReportSources,
    num_images: int,
    endpoint_url: str | None,
) -> TestFeatures:
    """Some images of the test set that was named, or else measured on."""
    name = sources.test_set or (measured and measured.test_set)
    if name is None:
        raise FileNotFoundError("No test set was measured on. Give --test-set to draw on one.")
    class_names = trained.shown(measured).class_names
    test = load_test_set(name, sources.test_root, class_names, endpoint_url)
    require(
        test.class_names == class_names,
        f"The run knows other classes than test set {name}: draw on the evaluated one.",
    )
    rows = rows_to_show(test.labels, num_images)
    require(len(rows) > 0, f"No image of test set {name} shows a class.")
    return see(test.only(rows), trained.backbone, num_images)
