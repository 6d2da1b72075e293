"""Average precision of trained recognizers on a test set, several seeds summarized.

    python jobs/evaluate.py --run runs/demo --test-set pictovoc
    python jobs/evaluate.py --run runs/voc --test-set voc2007 --test-root VOCdevkit --model RN101

With --modality-gap also how far apart texts and images are (Table VI of the paper). Writes
evaluation.json into the run's folder. The last line of the output is a JSON summary.
"""

import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro

from jobs._job import run_job
from t2ipal.config import differences, require, to_dict
from t2ipal.evaluation import evaluate, summarize
from t2ipal.extraction import feature_folder, read_training_features
from t2ipal.features import Backbone, BackboneConfig, FeatureSet, load_backbone
from t2ipal.modality_gap import ModalityGap, modality_gap
from t2ipal.recognizer import Recognizer
from t2ipal.store import Store
from t2ipal.test_sets import TestFeatures, test_set_features

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Measures every recognizer under `run`/train."""

    run: str
    """Folder of the run."""
    test_set: str = "pictovoc"
    """pictovoc, the embedded world's test scenes; pictovoc_validation; pictovoc_shifted (in other
    looks); pictovoc_novel, pictovoc_colors (by other classes, for runs with the vocabulary of that
    name); or voc2007, coco2014, coco2017, nuswide."""
    test_root: str | None = None
    """Folder of a real test set's images and annotations."""
    skip_difficult: bool = False
    """Leave VOC's difficult entries out of the ranking; they count as negatives otherwise."""
    eleven_point: bool = False
    """VOC2007's 11-point interpolation; non-interpolated otherwise."""
    modality_gap: bool = False
    """Also measure the mean cosine of class embeddings with test images, and with all captions and
    synthetic images of the run (the paper's Table VI); jobs/report.py then shows it."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def find_recognizers(run_dir: Path) -> dict[str, dict[int, Recognizer]]:
    """Method -> seed -> recognizer, of all that were trained in a run.

    Raises:
        FileNotFoundError: none was.
    """
    found: dict[str, dict[int, Recognizer]] = {}
    for path in sorted(run_dir.glob("train/*/recognizer.json")):
        name = re.fullmatch(r"(.+)-seed(\d+)", path.parent.name)
        if name:
            found.setdefault(name[1], {})[int(name[2])] = Recognizer.load(path.parent)
    if not found:
        raise FileNotFoundError(f"No recognizer in {run_dir}/train. Run jobs/train.py first.")
    return found


def load_same_backbone(run_dir: Path, config: BackboneConfig) -> Backbone:
    """The backbone, which must be the one that the run's recognizers were trained on.

    Raises:
        ValueError: it is another one; features of another CLIP mean nothing to a recognizer.
    """
    backbone = load_backbone(config)
    for path in sorted(run_dir.glob("train/*/settings.json")):
        inputs = json.loads(path.read_text())["inputs"]
        changed = differences(to_dict(config), inputs["backbone"])
        require(
            inputs["features"] == feature_folder(backbone),
            f"{path.parent} was trained on features of another backbone "
            f"({'; '.join(changed) or 'same name, other weights'}). Give the one it was trained "
            "on: --model, --pretrained, --dense-features, --precision.",
        )
    return backbone


def mean_gap(gaps: Sequence[ModalityGap]) -> dict[str, float | None]:
    """Each cosine's mean over seeds; None without an adapter."""
    columns = {f.name: [getattr(gap, f.name) for gap in gaps] for f in fields(ModalityGap)}
    return {
        name: None if None in column else round(statistics.fmean(column), 4)
        for name, column in columns.items()
    }


def run(options: Options, test: TestFeatures | None = None) -> dict[str, Any]:
    """Evaluates and returns method -> mAP mean, std, seeds, per-seed and per-class numbers."""
    run_dir = Path(options.run)
    recognizers = find_recognizers(run_dir)
    captions_and_images: tuple[FeatureSet, FeatureSet] | None = None
    if test is None or options.modality_gap:
        backbone = load_same_backbone(run_dir, options.backbone)
        if options.modality_gap:
            data = read_training_features(Store(options.run), feature_folder(backbone))
            require(data.images is not None, f"The modality gap needs images, {run_dir} has none.")
            assert data.images is not None
            captions_and_images = data.texts, data.images
        if test is None:
            test = test_set_features(options.test_set, options.test_root, backbone)
    methods: dict[str, Any] = {}
    definition = ""
    for method, by_seed in recognizers.items():
        evaluations = []
        for recognizer in by_seed.values():
            require(
                recognizer.config.class_names == test.class_names,
                f"{method} knows other classes than test set {test.name}: train on its vocabulary.",
            )
            evaluations.append(
                evaluate(
                    recognizer,
                    test.features,
                    difficult=test.difficult,
                    skip_difficult=options.skip_difficult,
                    eleven_point=options.eleven_point,
                )
            )
        summary = summarize([e.mAP for e in evaluations], list(by_seed))
        per_class = np.mean([e.average_precision for e in evaluations], axis=0)
        methods[method] = {**asdict(summary), "per_class": per_class.round(3).tolist()}
        if captions_and_images is not None:
            sets = test.features, *captions_and_images
            gaps = [modality_gap(recognizer, *sets) for recognizer in by_seed.values()]
            methods[method]["modality_gap"] = mean_gap(gaps)
        definition = evaluations[0].definition
    result = {
        "test_set": test.name,
        "num_images": len(test.features),
        "definition": definition,
        "class_names": list(test.class_names),
        "methods": methods,
    }
    (run_dir / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    result = run(tyro.cli(Options, args=arguments, description=__doc__))
    print(f"{'method':<28}{'mAP':>7}{'std':>7}  seeds   ({result['definition']})")
    for name, numbers in sorted(result["methods"].items(), key=lambda item: item[1]["mean"]):
        print(f"{name:<28}{numbers['mean']:7.2f}{numbers['std']:7.2f}  {len(numbers['seeds'])}")
    keys = ("mean", "std", "seeds", "modality_gap")
    print(
        json.dumps(
            {name: {k: m[k] for k in keys if k in m} for name, m in result["methods"].items()}
        )
    )
    return result


if __name__ == "__main__":
    run_job(main)
