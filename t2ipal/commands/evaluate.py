"""Average precision of trained recognizers on a test set, several seeds summarized.

    python jobs/evaluate.py --run runs/demo --test-set pictovoc
    python jobs/evaluate.py --run runs/voc --test-set voc2007 --test-root VOCdevkit --model RN101

On labelled photographs of your own:

    python jobs/evaluate.py --run runs/voc --test-set photos/

The folder holds labels.csv or a single csv (a column file, and labels with `;` between several, or
a column of 0 and 1 for each class), or a json of COCO instances, or else a folder for each class;
where there are several, this is the order. The path of a csv or json does too. What was found is
told before the numbers.

With --modality-gap also how far apart texts and images are (Table VI of the paper). Writes
evaluation.json into the run's folder. The last line of the output is a JSON summary.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.features.config import BackboneConfig
from t2ipal.places import NameOrUri, SharedUri, Uri
from t2ipal.store import Store


@dataclass(frozen=True)
class Options:
    """Measures every recognizer of a run."""

    run: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    test_set: NameOrUri = "pictovoc"
    """pictovoc, the embedded world's test scenes; pictovoc_validation; pictovoc_shifted (in other
    looks); pictovoc_novel, pictovoc_colors (by other classes, for runs with the vocabulary of that
    name); voc2007, coco2014, coco2017, nuswide; or a folder of your own labelled photographs."""
    test_root: Uri | None = None
    """Folder of a real test set's images and annotations: a local path, or s3://bucket/prefix."""
    recognizers: SharedUri | None = None
    """Folder or s3:// of the recognizers, where --output of jobs/train.py named one; None:
    `run`/train."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    measures: Annotated[EvaluationOptions, FLAT] = field(default_factory=EvaluationOptions)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns evaluation.json; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.evaluation.runs import (
        describe_evaluation,
        evaluate_run,
        find_recognizers,
        load_same_backbone,
        trained_at,
        training_features,
    )
    from t2ipal.evaluation.test_sets import test_set_features

    store = Store(options.run, options.endpoint_url)
    place, folder = trained_at(store, options.recognizers, options.endpoint_url)
    found = find_recognizers(place, folder)
    backbone, recognizers = load_same_backbone(place, found, options.backbone, folder)
    data = training_features(store, backbone) if options.measures.modality_gap else None
    class_names = next(iter(next(iter(recognizers.values())).values())).class_names
    test = test_set_features(
        options.test_set, options.test_root, backbone, class_names, options.endpoint_url
    )
    if test.origin:
        print(test.origin, file=sys.stderr)
    result = evaluate_run(store, recognizers, test, options.measures, data)
    print(describe_evaluation(result))
    keys = ("mean", "std", "seeds", "modality_gap")
    finish({name: {k: m[k] for k in keys if k in m} for name, m in result["methods"].items()})
    return result
