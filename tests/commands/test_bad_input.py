"""What a user can get wrong: each mistake is named, and what was there before is there after."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import write_small_run
from tiny_clip import RESNET, write_tiny_clip
from tiny_stable_diffusion import write_tiny_stable_diffusion

from t2ipal.commands import choose, evaluate, repair, report, synthesize, train, tune
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.metrics import mean_average_precision
from t2ipal.evaluation.results import evaluate_run
from t2ipal.evaluation.runs import find_recognizers
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import FeatureSet
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.store import Store

ROOT = Path(__file__).parents[2]
JOBS = {
    "synthesize": (synthesize.main, "--captions captions.txt --output new --in-process"),
    "train": (train.main, "--run run --model clip --num-workers 0"),
    "choose": (choose.main, "--run run --model clip --in-process"),
    "repair": (repair.main, "--run run --model clip --in-process"),
    "evaluate": (evaluate.main, "--run run --model clip"),
    "report": (report.main, "--run run --model clip"),
    "tune": (tune.main, "--run run --model clip --space space.yaml"),
}
"""The jobs and arguments that are right, which those of a case follow and replace."""

SPACE = "searcher: grid\nspace: {{{name}: {{grid: [{value}]}}}}\n"
VOCABULARY = "classes: [{name: cat, synonims: [kitty]}, dog]\n"
IMPLIED = "classes: [{name: cat, implies: [animl]}, animal]\n"
NO_CLASS = "No caption names a class of vocabulary 'voc2007' (2 x no class named). Choose the"
CONCEPT = "--methods class_concept"
PARTIAL = "--normalization partial --validation-set"

CASES = [
    # Caption files.
    ("synthesize", "--captions none.json", "/none.json."),
    ("synthesize", "--captions broken.json", "broken.json is no valid JSON: "),
    ("synthesize", "--captions boxes.json", "annotations[0]: no caption or text, only id, bbox"),
    (
        "synthesize",
        "--captions rows.jsonl",
        "rows.jsonl, line 1: no caption or text, only image_id",
    ),
    ("synthesize", "--captions captions.jsn", "Did you mean '.json'?"),
    ("synthesize", "--captions no_class.txt", NO_CLASS),
    # Names, with the nearest one.
    ("synthesize", "--vocabulary voc207", "Unknown vocabulary 'voc207'. Did you mean 'voc2007'?"),
    ("synthesize", "--vocabulary own.yaml", "'synonims'. Did you mean 'synonyms'?"),
    ("synthesize", "--vocabulary implied.yaml", "'animl'. Did you mean 'animal'?"),
    ("train", "--methods t2pal", "Unknown method 't2pal'. Did you mean 't2ipal'?"),
    ("train", "--data-set voc07", "Unknown data set 'voc07'. Did you mean 'voc2007'?"),
    ("train", "--set method.sharpnes=1", "Did you mean 'method.sharpness'?"),
    ("train", "--set method.adapter=locl", "Unknown adapter 'locl'. Did you mean 'local'?"),
    ("train", "--model RN1O1", "Unknown backbone 'RN1O1'. Did you mean 'RN101'?"),
    ("train", "--model RN101 --pretrained opnai", "Did you mean 'openai'?"),
    ("evaluate", "--test-set voc2077 --test-root .", "Did you mean 'voc2007'?"),
    ("tune", "--method t2pal", "Unknown method 't2pal'. Did you mean 't2ipal'?"),
    ("tune", "--space name.yaml", "name.yaml: Unknown option 'method.residual_ration'. Did you"),
    # Places that an option does not take.
    (
        "synthesize",
        "--captions gs://b/c.txt",
        "captions must be a local path or s3://..., got 'gs:",
    ),
    ("synthesize", "--vocabulary s3://b/v.yaml", "vocabulary must be a name or a local path, got"),
    (
        "synthesize",
        "--pipeline hf://a/b",
        "pipeline must be a name or a local path, got 'hf://a/b'.",
    ),
    (
        "synthesize",
        "--output s3:/b/run",
        "output must be a local path or s3://..., got 's3:/b/run'.",
    ),
    ("train", "--output ~no-such-user/x", "No home folder is known for ~no-such-user in '~no-such"),
    ("train", "--model s3://b/clip", "model must be a name or a local path, got 's3://b/clip'."),
    (
        "evaluate",
        "--test-root file://host/x",
        "test_root must be a local path or s3://..., got 'fi",
    ),
    ("report", "--recognizers https://x/y", "recognizers must be a local path or s3://..., got"),
    ("tune", "--space s3://b/space.yaml", "space must be a local path, got 's3://b/space.yaml'."),
    # Numbers, and words in their place.
    ("synthesize", "--num-inference-steps 0", "num_inference_steps must be > 0, got 0."),
    ("synthesize", "--num-inference-steps -3", "num_inference_steps must be > 0, got -3."),
    ("synthesize", "--image-size-px 0", "image_size_px must be a positive multiple of 8, got 0."),
    ("synthesize", "--image-size-px -64", "must be a positive multiple of 8, got -64."),
    ("synthesize", "--num-captions -1", "num_captions must be > 0, got -1."),
    ("synthesize", "--images-per-caption 0", "images_per_caption must be > 0, got 0."),
    ("synthesize", "--images-per-shard 0", "images_per_shard must be > 0, got 0."),
    ("synthesize", "--guidance-scale -1", "guidance_scale must be >= 0, got -1.0."),
    ("synthesize", "--jpeg-quality 0", "jpeg_quality must be in 1..100, got 0."),
    ("train", "--num-workers -1", "must be a number or MIN:MAX with 1 <= MIN <= MAX, such as"),
    ("train", "--num-workers two", "must be a number or MIN:MAX with 1 <= MIN <= MAX, such as"),
    ("train", "--num-workers 1:999", "num_workers must be at most "),
    ("train", "--max-failures -1", "max_failures must be >= 0, got -1."),
    ("train", "--min-workers 3 --max-workers 2", "min_workers must be <= max_workers, got 3 > 2."),
    ("train", "--seeds -1", "seed must be >= 0, got -1."),
    ("train", "--methods", "Give at least one method and one seed."),
    ("train", "--set training.batch_size=0", "batch_size must be > 0, got 0."),
    ("train", "--set training.images_per_caption=0", "images_per_caption must be > 0, got 0."),
    ("train", "--set training.lr=fast", "training.lr must be float, got 'fast'."),
    ("train", "--set sharpness", "A change must read name=value, got 'sharpness'."),
    ("train", "--set method.sharpness=[2", "'method.sharpness=[2' has no value that YAML can"),
    ("report", "--num-captions 0", "num_captions must be > 0, got 0."),
    ("report", "--num-heatmaps -2", "num_heatmaps must be > 0, got -2."),
    ("tune", "--num-samples 0", "num_samples must be >= 1, got 0."),
    ("tune", "--cpus-per-population 0", "cpus_per_population must be > 0, got 0"),
    ("tune", "--gpus-per-population -1", "gpus_per_population must be >= 0, got -1"),
    ("tune", "--space value.yaml", "value.yaml: residual_ratio must be >= 0, got -1.0."),
    ("train", "--set method.sharpness=-1", "sharpness must be >= 0, got -1.0."),
    ("train", f"{CONCEPT} --set method.local_sharpness=0", "local_sharpness must be > 0, got 0"),
    ("train", f"{CONCEPT} --set method.num_rounds=2.5", "method.num_rounds must be int, got 2.5."),
    ("choose", "--min-found 2", "min_found must be in 0..1, got 2.0."),
    ("choose", "--twin-bits 57", "twin_bits must be in 0..56, got 57."),
    ("choose", "--false-alarms 1", "false_alarms must be between 0 and 1, got 1.0."),
    ("repair", "--rounds 0", "rounds must be > 0, got 0."),
    # Changes that no method takes, and what a normalization may be chosen on.
    ("train", "--methods zsclip --set training.num_epochs=2", "applies to none of zsclip: leave"),
    ("train", f"{CONCEPT} --set training.num_epochs=1", "applies to none of class_concept: leave"),
    ("train", f"{CONCEPT} --set method.sharpness=2", "Unknown option 'method.sharpness'. Did you"),
    ("train", "--validation-set pictovoc_validation", "is for partial normalization, got none."),
    ("train", f"{PARTIAL} pictovoc_validatoin", "Did you mean 'pictovoc_validation'?"),
    ("train", f"{PARTIAL} pictovoc", "validation_set must be no test set, got pictovoc: what is"),
    ("train", f"{PARTIAL} voc2007_trainval", "or a folder of your own, got voc2007_trainval: give"),
    ("train", "--normalization partial", "(inputs.held_out: None there, 0.2 here; "),
    # Folders that hold something else, or not enough.
    ("synthesize", "--output run", "run holds another run. Differences: synthesis."),
    ("train", "--set training.num_epochs=2", "(recipe.training.num_epochs: 1 there, 2 here)"),
    ("train", "--run empty", "empty. Run jobs/synthesize.py first."),
    ("tune", "--run empty", "empty. Run jobs/synthesize.py first."),
    ("choose", "--run empty", "empty. Run jobs/synthesize.py first."),
    ("repair", "--run empty", "empty. Run jobs/synthesize.py first."),
    ("tune", "--space none.yaml", "No space file none.yaml."),
    ("report", "--run empty", "empty. Run jobs/synthesize.py first."),
    ("report", "--evaluation empty", "empty. Run jobs/evaluate.py first."),
    ("report", "--recognizers empty", "empty/. Run jobs/train.py first."),
    ("report", "--model clip2", "run/train/tai_dpt-seed0 was trained on features of another"),
    ("report", "--run torn", "torn is damaged. Remove it and run jobs/evaluate.py again."),
    ("evaluate", "--run empty", "empty/train. Run jobs/train.py first."),
    ("evaluate", "--test-set voc2007", "Test set voc2007 needs its folder: give --test-root."),
    # Weights that are missing, of another shape, or of another model.
    ("synthesize", "--pipeline models/none", "models/none"),
    ("synthesize", "--pipeline ./clip", "A pipeline folder must hold model_index.json; clip does"),
    ("synthesize", "--pipeline ./misfit", "The weights in misfit do not fit: "),
    ("train", "--model models/none", "must hold open_clip_config.json; models/none does not."),
    ("train", "--model unweighted", "must hold open_clip_model.safetensors; unweighted does not."),
    ("train", "--model wider", "The weights of backbone wider must be whole and fit its"),
    ("evaluate", "--model clip2", "run/train/tai_dpt-seed0 was trained on features of another"),
    ("evaluate", "--run narrow", "global_embeddings in recognizer.safetensors must have shape"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with inputs right and wrong, and a trained run."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "captions.txt").write_text("a dog on a boat\na red house\ntwo cats\n")
    (folder / "no_class.txt").write_text("a red house\nan empty street\n")
    (folder / "broken.json").write_text('{"annotations": [{"id": 1, "caption": "a d')
    (folder / "boxes.json").write_text(json.dumps({"annotations": [{"id": 1, "bbox": []}]}))
    (folder / "rows.jsonl").write_text('{"image_id": 3}\n')
    (folder / "own.yaml").write_text(VOCABULARY)
    (folder / "implied.yaml").write_text(IMPLIED)
    (folder / "space.yaml").write_text(SPACE.format(name="method.residual_ratio", value=1.0))
    (folder / "name.yaml").write_text(SPACE.format(name="method.residual_ration", value=1.0))
    (folder / "value.yaml").write_text(SPACE.format(name="method.residual_ratio", value=-1.0))
    (folder / "empty").mkdir()
    misfit = write_tiny_stable_diffusion(folder / "misfit")
    path = misfit / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(weights | {"conv_in.weight": torch.zeros(4, 5, 3, 3)}, path, {"format": "pt"})
    write_tiny_clip(folder / "clip")
    write_tiny_clip(folder / "clip2", seed=1)
    write_tiny_clip(folder / "wider")
    architecture = {**RESNET, "embed_dim": 16}
    config = json.loads((folder / "wider" / "open_clip_config.json").read_text())
    config = json.dumps(config | {"model_cfg": architecture})
    (folder / "wider" / "open_clip_config.json").write_text(config)
    shutil.copytree(folder / "clip", folder / "unweighted")
    (folder / "unweighted" / "open_clip_model.safetensors").unlink()
    write_small_run(folder / "run", images_per_caption=1)
    shutil.copytree(folder / "run", folder / "torn")
    (folder / "torn" / "evaluation.json").write_text('{"methods": {"tai_d')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = "--methods tai_dpt --seeds 0 --set training.num_epochs=1"
        train.main([*JOBS["train"][1].split(), *words.split()])
    narrow = folder / "narrow" / "train" / "tai_dpt-seed0"
    shutil.copytree(folder / "run" / "train" / "tai_dpt-seed0", narrow)
    weights = load_file(narrow / "recognizer.safetensors")
    weights["global_embeddings"] = weights["global_embeddings"][:-1].clone()
    save_file(weights, narrow / "recognizer.safetensors")
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arguments(job, changes):
    """A job's right arguments with the changes at their end, where they win."""
    given = JOBS[job][1]
    if job == "train" and "--methods" not in changes:
        given += " --methods tai_dpt"
    if job == "train" and "--seeds" not in changes:
        given += " --seeds 0"
    return [*given.split(), *changes.split()]


@pytest.mark.parametrize(("job", "changes", "message"), CASES)
def test_a_mistake_is_named_and_nothing_is_lost(folder, monkeypatch, job, changes, message):
    monkeypatch.chdir(folder)
    before = contents(folder)
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        JOBS[job][0](arguments(job, changes))
    assert message in " ".join(str(caught.value).split())
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before
    new = {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()}
    if "misfit" in changes:  # only a worker, which reads the weights, can tell
        shutil.rmtree(folder / "new")
        new.discard("new")
    assert not new


def test_the_command_line(folder):
    """One line and exit code 2; what was there before is there after."""
    before = contents(folder)
    for job, changes, message in (
        ("synthesize", "--output run", "run holds another run."),
        ("train", "--run empty", "empty. Run jobs/synthesize.py first."),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments(job, changes)],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=120,
        )
        assert done.returncode == 2 and done.stdout == ""
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert message in line and done.stderr.endswith(f"{line}\n")
        assert contents(folder) == before


@pytest.mark.parametrize(
    ("job", "flag", "nearest"),
    [("train", "--method", "--methods"), ("evaluate", "--test-sets", "--test-set")],
)
def test_an_unknown_flag_names_the_nearest(capsys, job, flag, nearest):
    with pytest.raises(SystemExit) as stopped:
        JOBS[job][0](["--run", "run", flag, "x"])
    assert stopped.value.code == 2
    assert nearest in capsys.readouterr().err.replace(flag, "", 1)


@pytest.mark.parametrize(
    ("job", "changes", "named"),
    [
        ("synthesize", "--scheduler dmp++", "dpm++"),
        ("synthesize", "--precision pf16", "fp16"),
        ("train", "--normalization ful", "partial"),
        ("train", "--dense-features valu", "value"),
    ],
)
def test_an_unknown_choice_names_those_that_there_are(
    folder, monkeypatch, capsys, job, changes, named
):
    monkeypatch.chdir(folder)
    before = contents(folder)
    with pytest.raises(SystemExit) as stopped:
        JOBS[job][0](arguments(job, changes))
    assert stopped.value.code == 2
    assert f"'{named}'" in capsys.readouterr().err and contents(folder) == before


@pytest.mark.parametrize("job", ["train", "choose", "repair", "evaluate", "report", "tune"])
def test_a_relative_run_of_a_submitted_job_is_refused(folder, monkeypatch, job):
    """It would be a folder of the temporary copy of the working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"run must be s3:// or an absolute path, got 'run'"):
        JOBS[job][0](arguments(job, ""))
    if job in ("train", "tune", "report"):
        with pytest.raises(ValueError, match=r"output must be s3:// or an absolute path, got 'x'"):
            JOBS[job][0](arguments(job, f"--run {folder}/run --output x"))


def test_a_flag_without_its_number_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--run", "run", "--max-failures", "two"])
    assert stopped.value.code == 2
    assert "--max-failures" in capsys.readouterr().err


def drawn_test_set(class_names, labels, folder):
    """A test set of random features."""
    width = load_backbone(BackboneConfig(model=str(folder / "clip"))).embed_dim
    features = torch.nn.functional.normalize(torch.randn(len(labels), 4, width), dim=-1)
    images = FeatureSet(features[:, 0], features, None, torch.from_numpy(labels), features[:, 1])
    return TestFeatures("drawn", class_names, images, None, [])


def test_a_test_set_of_another_vocabulary(folder):
    names = ("person", "zebra")
    test = drawn_test_set(names, np.eye(2, dtype=np.float32), folder)
    message = r"tai_dpt knows other classes than test set drawn: train on its vocabulary\."
    store = Store(folder / "run")
    with pytest.raises(ValueError, match=message):
        evaluate_run(store, find_recognizers(store), test, EvaluationOptions())
    assert not (folder / "run" / "evaluation.json").exists()


def test_a_class_without_positives_is_named(folder):
    labels = np.eye(20, dtype=np.float32)
    labels[:, [CLASS_NAMES.index("sofa"), CLASS_NAMES.index("cow")]] = 0
    store, test = Store(folder / "run"), drawn_test_set(CLASS_NAMES, labels, folder)
    with pytest.raises(ValueError, match=r"a positive of every class, got none of: cow, sofa\."):
        evaluate_run(store, find_recognizers(store), test, EvaluationOptions())
    assert not (folder / "run" / "evaluation.json").exists()


def test_scores_and_labels_of_different_shapes():
    scores, labels = np.zeros((4, 3)), np.ones((4, 2), dtype=int)
    with pytest.raises(ValueError, match=r"of one shape, got \(4, 3\) and \(4, 2\)\."):
        mean_average_precision(scores, labels)


ROW = '{"trials": [{"values": null, "status": "ok", "reason": "", "loss": 1, "seconds": 1, '


@pytest.mark.parametrize(
    "text", ['{"trials": [', "[]", '{"rows": []}', ROW + '"validation_mAP": 5}]}']
)
def test_damaged_trials_are_named(folder, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "run", "run")
    (tmp_path / "run" / "tune").mkdir()
    (tmp_path / "run" / "tune" / "trials.json").write_text(text)
    shutil.rmtree(tmp_path / "run" / "train")
    words = ["--run", "run"]
    message = r"tune/trials.json in .*run is damaged. Remove it and run jobs/tune.py"
    with pytest.raises(ValueError, match=message):
        report.main(words)
    assert not (tmp_path / "run" / "report.html").exists()
