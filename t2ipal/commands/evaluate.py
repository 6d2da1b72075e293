"""Average precision, or accuracy, of trained recognizers on a test set, several seeds summarized.

    python jobs/evaluate.py --run runs/demo --test-set pictovoc
    python jobs/evaluate.py --run runs/voc --test-set voc2007 --test-root VOCdevkit --model RN101

On labelled photographs of your own:

    python jobs/evaluate.py --run runs/voc --test-set photos/

The folder holds labels.csv or a single csv (a column file, and labels with `;` between several, or
a column of 0 and 1 for each class), or a json of COCO instances, or else a folder for each class;
where there are several, this is the order. The path of a csv or json does too. What was found is
told before the numbers, and which photographs cannot be read.

Features of the images are kept in the run's folder, under test_features/, for the next time.
With --modality-gap also how far apart texts and images are (Table VI of the paper). Writes
evaluation.json into the run's folder, or that of --output. The last line of the output is a JSON
summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import test_set_workers
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import NameOrUri, SharedUri, Uri
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


@dataclass(frozen=True)
class Measures(EvaluationOptions):
    """Its options, one of which goes by two names."""

    skip_absent: Annotated[bool, tyro.conf.arg(aliases=["--skip-absent-classes"])] = False
    """Leave classes that no test image shows out of the mean; they are refused otherwise."""


@dataclass(frozen=True)
class Options:
    """Measures every recognizer of a run."""

    run: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    test_set: NameOrUri = "pictovoc"
    """pictovoc, the embedded world's test scenes; pictovoc_validation; pictovoc_shifted,
    pictovoc_night (in other looks); pictovoc_single (of one object); pictovoc_novel,
    pictovoc_colors, pictovoc_attributes (by other classes, for runs with the vocabulary of that
    name); voc2007, coco2014, coco2017, nuswide, flowers102, food101, awa2; or a folder of your own
    labelled photographs. On pictovoc_single, flowers102 and food101 it is accuracy."""
    test_root: Uri | None = None
    """Folder of a real test set's images and annotations: a local path, or s3://bucket/prefix."""
    recognizers: SharedUri | None = None
    """Folder or s3:// of the recognizers, where --output of jobs/train.py named one; None:
    `run`/train."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    output: SharedUri | None = None
    """Folder for evaluation.json, or s3://bucket/prefix; None: `run`."""
    in_process: bool = False
    """Compute features in this process, without Ray; so are those of few photographs anyway."""
    measures: Annotated[Measures, FLAT] = field(default_factory=Measures)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns evaluation.json; `arguments` None: those of the process."""
    return run(parse(Options, arguments, __doc__))


def run(options: Options) -> dict[str, Any]:
    """Runs the job with options that are read already."""
    from t2ipal.evaluation.results import (
        EVALUATION,
        describe_evaluation,
        measure,
        require_measurable,
        summarize_evaluation,
        write_evaluation,
    )
    from t2ipal.evaluation.runs import (
        find_recognizers,
        load_same_backbone,
        trained_at,
        training_features,
    )
    from t2ipal.evaluation.stored_sets import (
        feature_place,
        set_parts,
        stored_features,
        worth_starting_ray,
    )
    from t2ipal.evaluation.test_sets import load_test_set

    store = Store(options.run, options.endpoint_url)
    place, folder = trained_at(store, options.recognizers, options.endpoint_url)
    found = find_recognizers(place, folder)
    output = store if options.output is None else Store(options.output, options.endpoint_url)
    try:
        output.require_writable(EVALUATION)
    except OSError as error:
        if options.output is not None:
            raise
        remark(f"{error} The numbers are printed all the same; --output names another folder.")
    backbone, recognizers = load_same_backbone(place, found, options.backbone, folder)
    wants_gap = options.measures.modality_gap
    data = training_features(store, backbone, options.access) if wants_gap else None
    class_names = next(iter(next(iter(recognizers.values())).values())).class_names
    test = load_test_set(options.test_set, options.test_root, class_names, options.endpoint_url)
    if test.origin:
        remark(test.origin)
    absent = require_measurable(
        recognizers, test.name, test.class_names, test.labels, options.measures
    )
    if absent:
        remark(f"Left out of the mean, for no image shows them: {', '.join(absent)}.")
    with feature_place(store, output) as (features_at, is_kept):
        parts = set_parts(test, backbone)
        on_ray = is_kept and worth_starting_ray(parts, features_at)
        in_process = options.in_process or not on_ray
        with session(in_process, options.ray, options.pool):
            features = stored_features(
                test,
                backbone,
                features_at,
                parts=parts,
                workers=test_set_workers(in_process, options.pool),
                access=options.access,
                max_unreadable_fraction=options.measures.max_unreadable_fraction,
                progress=True,
            )
        result = measure(recognizers, features, options.measures, data)
    print(describe_evaluation(result))
    finish(summarize_evaluation(result))
    write_evaluation(output, result)
    return result
