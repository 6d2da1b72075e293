import importlib
import json
from pathlib import Path

import pytest

from benchmarks import true_size
from benchmarks.true_size import Stage, StageError, Stages
from t2ipal.commands.running import parse


def test_a_stage_is_timed_and_its_memory_measured():
    stages = Stages()
    stages.run("fill", "bytes", "-c", "print(len(b'x' * 2**28))", says=str(2**28))
    (stage,) = stages.done
    assert (stage.what, stage.subject) == ("fill", "bytes")
    assert 0 < stage.cpu_seconds < stage.seconds + 1 and stage.peak_mib > 256


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("import sys; print('no room'); sys.exit(3)", {}, r"expected exit code 0, got exit code 3"),
        ("print('other')", {"says": "done"}, r"expected exit code 0 and 'done', got exit code 0"),
        ("raise SystemExit('no such CLIP')", {"code": 2}, r"expected exit code 2, got exit code 1"),
    ],
)
def test_a_stage_that_does_other_than_it_should(code, expected, message):
    stages = Stages()
    with pytest.raises(StageError, match=f"^train, RN50: {message} from\n") as caught:
        stages.run("train", "RN50", "-c", code, **expected)
    assert str(caught.value).splitlines()[-1] in ("no room", "other", "no such CLIP")
    assert stages.done == []


def test_a_stage_that_ends_by_a_signal():
    with pytest.raises(StageError, match="got exit code -9"):
        Stages().run("train", "RN50", "-c", "import os; os.kill(os.getpid(), 9)")


def written(stages, what, subject, *words, **_):
    """Stands in for the models: folders that hold nothing."""
    if words[0] == "-c":
        Path(words[-1]).mkdir()
    stages.done.append(Stage(what, subject, 2.0, 1.0, 1234.5))


def test_every_model_and_every_clip_goes_through_all_jobs(tmp_path, monkeypatch, capsys):
    calls = []

    def run(stages, what, subject, *words, **expected):
        calls.append((what, subject, [str(word) for word in words]))
        written(stages, what, subject, *words)

    monkeypatch.setattr(Stages, "run", run)
    coco = tmp_path / "coco" / true_size.COCO
    coco.parent.mkdir(parents=True)
    coco.touch()
    arguments = ["--keep", str(tmp_path / "models"), "--coco", str(tmp_path / "coco")]
    result = true_size.main(arguments)
    subjects = {clip: model for what, subject, _ in calls if what == "report"
                for clip, model in [subject.split(" on ")]}  # fmt: skip
    assert subjects == dict(zip(true_size.BACKBONES, ["sd15", "sd21", "sdxl", "sd15"]))
    for what in ("train", "evaluate on 3 photographs", "evaluate on MS-COCO", "predict"):
        assert sum(call[0] == what for call in calls) == len(subjects)
    # Each command is one that its job understands.
    for _, _, (script, *words) in calls:
        if script.startswith("jobs/"):
            job = importlib.import_module(f"t2ipal.commands.{Path(script).stem}")
            parse(job.Options, words, "")
    printed = capsys.readouterr().out.splitlines()
    assert printed[2] == "| write the model | sd15 | 2.0 | 1.0 | 1,234 |"
    assert json.loads(printed[-1]) == result
    assert result["failed"] == "" and len(result["stages"]) == len(calls)
    calls.clear()
    true_size.main([*arguments, "--models", "sd21", "--backbones", "RN101", "ViT-B-16"])
    assert [what for what, *_ in calls[:2]] == ["synthesize", "train"]  # models are there


def test_a_failed_stage_ends_it_with_exit_code_1(tmp_path, monkeypatch, capsys):
    def run(stages, what, subject, *words, **_):
        if what == "train":
            raise StageError(f"{what}, {subject}: expected another end")
        written(stages, what, subject, *words)

    monkeypatch.setattr(Stages, "run", run)
    arguments = ["--models", "sd15", "--backbones", "RN50", "--coco", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        true_size.main(arguments)
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert "| synthesize | sd15 |" in said.out
    assert json.loads(said.out.splitlines()[-1])["failed"] == "train, RN50 on sd15"
    assert "FAILED: train, RN50 on sd15: expected another end" in said.err
    assert f"{tmp_path / true_size.COCO} is not there" in said.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "sd16"], r"Unknown model 'sd16'\. Did you mean"),
        (["--backbones", "RN51"], r"Unknown backbone 'RN51'\. Did you mean"),
        (["--backbones"], r"There must be a backbone, got none\."),
    ],
)
def test_bad_input_is_named(flags, message):
    with pytest.raises(ValueError, match=message):
        true_size.main(flags)


def test_it_keeps_itself_small():
    """A child's peak starts from the size of the process that starts it."""
    code = "import sys; from benchmarks import true_size; assert 'torch' not in sys.modules"
    Stages().run("import", "", "-c", code)
