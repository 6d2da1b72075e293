"""One self-contained HTML page about a run: results, contact sheet, heatmaps, settings.

    python jobs/report.py --run runs/demo

Reads what the other jobs left in the run's folder. The run must be trained and evaluated; other
parts that are not there are left out. Writes report.html there. The last line of the output is a
JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse
from t2ipal.features.config import BackboneConfig
from t2ipal.places import NameOrUri, SharedUri, Uri
from t2ipal.report.config import ReportConfig
from t2ipal.store import Store, read_manifest


@dataclass(frozen=True)
class Options:
    """Draws the page of a run."""

    run: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    test_set: NameOrUri | None = None
    """Test set that the heatmaps are drawn on; None: the one that was evaluated."""
    test_root: Uri | None = None
    """Folder of a real test set."""
    recognizers: SharedUri | None = None
    """Folder or s3:// of the recognizers, where --output of jobs/train.py named one; None:
    `run`/train."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    page: Annotated[ReportConfig, FLAT] = field(default_factory=ReportConfig)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    import torch

    from t2ipal.evaluation.results import read_evaluation
    from t2ipal.evaluation.runs import find_recognizers, load_same_backbone, trained_at
    from t2ipal.evaluation.test_sets import test_set_features
    from t2ipal.report.gathering import gather_report, write_report

    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))
    store = Store(options.run, options.endpoint_url)
    manifest, evaluation = read_manifest(store), read_evaluation(store)
    place, folder = trained_at(store, options.recognizers, options.endpoint_url)
    found = find_recognizers(place, folder)
    backbone, recognizers = load_same_backbone(place, found, options.backbone, folder)
    test = test_set_features(
        options.test_set or evaluation["test_set"], options.test_root, backbone,
        manifest.class_names, options.endpoint_url,
    )  # fmt: skip
    report, stored = gather_report(
        store, recognizers, test, options.page, options.backbone, trained=(place, folder)
    )
    return finish(
        {
            "report": write_report(store, report),
            "judge_share": stored.share,
            "num_images": manifest.num_images,
        }
    )
