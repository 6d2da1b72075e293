"""Models of true size with random weights through every job: whether it works, time and memory.

    python benchmarks/true_size.py
    python benchmarks/true_size.py --models sd15 --backbones RN50 --keep runs/true-size

Stable Diffusion 1.5, 2.1 and XL draw two captions, in two steps of 256 px. RN50, RN101, ViT-B/16
and DFN's ViT-B/16 take features. Prompts of 80 classes are trained, measured on labelled
photographs, used and reported. A CLIP of SigLIP's must be refused. Scores are those of chance.
Without Ray; each stage is a process of its own. Prints seconds and memory of each. Ends with
exit code 1 at the first stage that fails. Needs 14 GB of disk, free again at the end unless --keep
names a folder. The last line is JSON.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from t2ipal.commands.running import finish, parse, remark, run_job
from t2ipal.config import one_of, require
from t2ipal.places import LocalPath

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("sd15", "sd21", "sdxl")
BACKBONES = ("RN50", "RN101", "ViT-B-16", "ViT-B-16-quickgelu")
"""By open_clip's names; the last is the architecture of DFN's weights."""
REFUSED = "ViT-B-16-SigLIP"
REFUSAL = "A backbone must be a CLIP with a causal text encoder"
COCO = "annotations/instances_val2017_mini.json"
CAPTIONS = ("A dog sits on a couch beside a bicycle.", "A person holds an umbrella near a bus.")
PHOTOGRAPHS = {"first.jpg": "dog;couch", "second.jpg": "person", "third.jpg": "person;bus"}
"""Made up, with their labels."""
ALL_WORKED = '"num_failed": 0,'
"""In the last line of a job where no image failed."""
TAIL = 3000
"""Letters of what a failed stage said that are shown."""


@dataclass(frozen=True)
class Options:
    """What goes through the jobs."""

    models: tuple[str, ...] = MODELS
    """Any of sd15, sd21, sdxl."""
    backbones: tuple[str, ...] = BACKBONES
    """Any of RN50, RN101, ViT-B-16, ViT-B-16-quickgelu."""
    keep: LocalPath | None = None
    """Folder for the models; those that are there are used again. None: they are removed."""
    coco: LocalPath = str(ROOT.parent / "shared/data/coco")
    """Folder of MS-COCO's photographs with annotations/instances_val2017_mini.json; left out where
    it is not there."""
    image_size_px: int = 256
    """Side of the images that are drawn."""
    num_inference_steps: int = 2
    """Of each of them."""
    num_epochs: int = 2
    """Of training."""

    def __post_init__(self) -> None:
        chosen = {"model": (self.models, MODELS), "backbone": (self.backbones, BACKBONES)}
        for kind, (names, known) in chosen.items():
            require(len(names) > 0, f"There must be a {kind}, got none.")
            for name in names:
                one_of(kind, name, known)


@dataclass(frozen=True)
class Stage:
    """One process that did what it should."""

    what: str
    subject: str
    """The models that it loaded."""
    seconds: float
    cpu_seconds: float
    """Of all its threads: what does not depend on others that use the machine."""
    peak_mib: float
    """Largest resident memory; pages of files that the system may drop are counted too."""


class StageError(Exception):
    """A process did not do what it should."""


class Stages:
    """Runs one stage after another, and knows those that are done."""

    def __init__(self) -> None:
        self.done: list[Stage] = []

    def run(self, what: str, subject: str, *words: object, code: int = 0, says: str = "") -> None:
        """Runs `python WORDS` to its end.

        Args:
            what: it does.
            subject: the models that it loads.
            words: of the command.
            code: that it must exit with.
            says: what it must print.

        Raises:
            StageError: it did not; with the end of what it printed.
        """
        remark(f"{what}, {subject} ...")
        started = time.monotonic()
        with tempfile.TemporaryFile() as output:
            command = [sys.executable, *map(str, words)]
            child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read().decode(errors="replace")
        if child.returncode != code or says not in said:
            expected = f"exit code {code}" + (f" and {says!r}" if says else "")
            raise StageError(
                f"{what}, {subject}: expected {expected}, got exit code {child.returncode} from\n"
                f"{' '.join(command)}\n{said[-TAIL:]}"
            )
        seconds, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        peak_mib = round(usage.ru_maxrss / 1024)
        self.done.append(Stage(what, subject, round(seconds, 1), round(cpu, 1), peak_mib))


def write_models(stages: Stages, folder: Path, models: Sequence[str], clips: Sequence[str]) -> None:
    """Writes what is not in the folder yet, each model in a process of its own."""
    start = "import sys; from pathlib import Path; name, folder = sys.argv[1], Path(sys.argv[2]); "
    diffusion = (
        f"{start}import torch; from benchmarks.true_size_models import SIZES, write_model; "
        "write_model(SIZES[name], folder, 'cpu', torch.float16)"
    )
    clip = (
        f"{start}from benchmarks.true_size_clip import write_random_clip; "
        "write_random_clip(folder, name)"
    )
    for name in (*models, *clips):
        if not (folder / name).exists():
            unfinished = folder / f"{name}.unfinished"
            code = diffusion if name in MODELS else clip
            stages.run("write the model", name, "-c", code, name, unfinished)
            unfinished.rename(folder / name)


def write_photographs(folder: Path) -> Path:
    """Three pictures of noise with labels.csv; gives the folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(folder / name)
    lines = ["file,labels", *(",".join(row) for row in PHOTOGRAPHS.items())]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def draw(stages: Stages, options: Options, models: Path, work: Path) -> None:
    """A run of each Stable Diffusion."""
    captions = work / "captions.txt"
    captions.write_text("\n".join(CAPTIONS))
    for name in options.models:
        stages.run(
            "synthesize", name, "jobs/synthesize.py", "--in-process", "--captions", captions,
            "--vocabulary", "coco2014", "--pipeline", models / name, "--output", work / name,
            "--num-inference-steps", options.num_inference_steps,
            "--image-size-px", options.image_size_px, "--batch-size", len(CAPTIONS),
            says=ALL_WORKED,
        )  # fmt: skip


def recognize(stages: Stages, options: Options, models: Path, work: Path) -> None:
    """All that comes after synthesis, with each CLIP; the runs take turns."""
    photographs, coco = write_photographs(work / "photographs"), Path(options.coco) / COCO
    tests = {"3 photographs": photographs}
    if coco.exists():
        tests["MS-COCO"] = coco
    else:
        remark(f"{coco} is not there: MS-COCO's photographs are left out. Give --coco.")
    for at in range(max(len(options.backbones), len(options.models))):
        clip, model = (names[at % len(names)] for names in (options.backbones, options.models))
        run, trained, subject = work / model, work / f"trained-{at}", f"{clip} on {model}"
        backbone = ("--model", models / clip)
        stages.run(
            "train", subject, "jobs/train.py", "--num-workers", 0, "--run", run, *backbone,
            "--output", trained, "--data-set", "coco2014", "--seeds", 0,
            "--set", f"training.num_epochs={options.num_epochs}", "training.batch_size=2",
        )  # fmt: skip
        found = ("--run", run, "--recognizers", trained, *backbone)
        for name, place in tests.items():
            stages.run(
                f"evaluate on {name}", subject, "jobs/evaluate.py", *found, "--test-set", place,
                "--skip-absent", "--modality-gap", "--output", trained,
            )  # fmt: skip
        stages.run(
            "predict", subject, "jobs/predict.py", "--in-process", "--images", photographs,
            "--recognizer", trained / "t2ipal-seed0", "--output", trained / "predictions.jsonl",
            "--html", trained / "sheet.html", says=ALL_WORKED,
        )  # fmt: skip
        stages.run(
            "report", subject, "jobs/report.py", *found, "--evaluation", trained,
            "--output", trained / "report.html",
        )  # fmt: skip


def refuse(stages: Stages, options: Options, models: Path, work: Path) -> None:
    """Asks for features of a CLIP of another kind."""
    stages.run(
        "refuse", REFUSED, "jobs/train.py", "--num-workers", 0, "--run", work / options.models[0],
        "--model", models / REFUSED, code=2, says=REFUSAL,
    )  # fmt: skip


@contextlib.contextmanager
def folders(keep: str | None) -> Iterator[tuple[Path, Path]]:
    """Of the models, and of what the jobs write; those that nobody keeps are removed at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        models, work = Path(keep or f"{temporary}/models").absolute(), Path(temporary, "work")
        models.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        yield models, work


def table(stages: Sequence[Stage]) -> str:
    """Stages as markdown."""
    head = "stage", "models", "seconds", "CPU seconds", "peak memory in MiB"
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for stage in stages:
        numbers = f"{stage.seconds:.1f}", f"{stage.cpu_seconds:.1f}", f"{stage.peak_mib:,.0f}"
        lines.append(f"| {' | '.join((stage.what, stage.subject, *numbers))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs and prints; exits with 1 where a stage failed."""
    options, stages = parse(Options, arguments, __doc__), Stages()
    failure = ""
    with folders(options.keep) as (models, work):
        try:
            write_models(stages, models, options.models, (*options.backbones, REFUSED))
            draw(stages, options, models, work)
            recognize(stages, options, models, work)
            refuse(stages, options, models, work)
        except StageError as error:
            failure = str(error)
    print(table(stages.done))
    if failure:
        remark(f"FAILED: {failure}")
    result = finish(
        {
            "failed": failure.partition(":")[0],
            "seconds": round(sum(stage.seconds for stage in stages.done)),
            "peak_mib": max((stage.peak_mib for stage in stages.done), default=0),
            "stages": [asdict(stage) for stage in stages.done],
        }
    )
    if failure:
        sys.exit(1)
    return result


if __name__ == "__main__":
    run_job(main)
