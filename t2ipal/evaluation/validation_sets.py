"""Labelled images to choose settings on: a data set that is no test set, or your own folder."""

from collections.abc import Sequence

from t2ipal.config import one_of, require
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.metrics import shown_classes
from t2ipal.evaluation.test_sets import DATA_SETS, TestSet, is_own, load_test_set, see
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import FeatureTable


def require_validation_set(name: str) -> None:
    """Raises ValueError unless settings may be chosen on a data set of this name."""
    if not is_own(name):
        one_of("validation set", name, DATA_SETS)
    require(
        name not in DATA_SETS or not DATA_SETS[name].is_test,
        f"validation_set must be no test set, got {name}: what is chosen on test images is "
        "no longer measured by them. Take pictovoc_validation, or a folder of your own.",
    )
    require(
        name not in DATA_SETS or DATA_SETS[name].load is None,
        f"validation_set must be of the embedded world or a folder of your own, got {name}: give "
        "the path of a folder, or of a csv or json of labels, in place of the name.",
    )


def load_validation_set(name: str, class_names: Sequence[str], endpoint_url: str | None) -> TestSet:
    """The images with their labels.

    Raises:
        ValueError: they are of other classes, or show none.
    """
    labelled = load_test_set(name, None, class_names, endpoint_url)
    require(
        labelled.class_names == tuple(class_names),
        f"The run knows other classes than validation set {name}: choose on another one.",
    )
    shown_classes(labelled.labels, class_names, skip_absent=True)
    return labelled


def validation_features(labelled: TestSet, backbone: BackboneConfig) -> FeatureTable:
    """Their features with their labels."""
    most = EvaluationOptions().max_unreadable_fraction
    return see(labelled, load_backbone(backbone), 0, most).features
