"""Runs in a store: what each leaves there, how it goes on, and when it is refused."""

import json
from functools import partial

import fake_clip
import pytest
import torch
from fake_clip import FakeClip

from t2ipal.config import fingerprint, override, to_dict
from t2ipal.methods.recognizer import Recognizer
from t2ipal.store import Store
from t2ipal.training.loop import fit
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import recipe
from t2ipal.training.runs import (
    CHECKPOINT,
    StoredCheckpoints,
    TrainingWork,
    in_process,
    load_run,
    train_runs,
)

RECIPE = override(
    recipe("t2ipal", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES),
    {"training.num_epochs": 3, "training.batch_size": 16},
)
TEXTS_ONLY = override(RECIPE, {"method.adapter": "none", "method.image_weight": 0.0})
CLASS_CONCEPT = recipe("class_concept", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES)
INPUTS = {"model": "fake", "num_captions": 40}
RUNS = [
    TrainingRun("t2ipal-seed0", RECIPE),
    TrainingRun("tai_dpt-seed1", override(TEXTS_ONLY, {"training.seed": 1})),
    TrainingRun("class_concept-seed0", CLASS_CONCEPT),
]
FILES = {"recognizer.safetensors", "recognizer.json", "settings.json", "history.json"}


def load_inputs():
    return FakeClip(), fake_clip.training_features()


class Died(Exception):
    pass


def load_inputs_and_die(after):
    """Breaks off after so many looks at the text encoder."""
    clip, data = load_inputs()
    encode, calls = clip.encode_token_embeddings, []

    def encode_or_die(*prompts):
        calls.append(0)
        if len(calls) > after:
            raise Died
        return encode(*prompts)

    clip.encode_token_embeddings = encode_or_die
    return clip, data


def alone(run):
    method = run.recipe.method.build(FakeClip(), run.recipe.training.seed)
    return fit(method, fake_clip.training_features(), run.recipe.training)


def check_equal(result, expected):
    assert result.history == expected.history
    test = fake_clip.images(9)
    assert torch.equal(result.recognizer.scores(test), expected.recognizer.scores(test))


def files(store, folder):
    return {key.removeprefix(f"{folder}/") for key in store.list(f"{folder}/")}


def checkpoint(run, epochs=2):
    """The bytes of a run's checkpoint after so many epochs."""

    class Memory:
        def read(self):
            return None

        def write(self, data):
            self.data = data

        def is_due(self, is_last):
            return not is_last

    class Stop(Exception):
        pass

    def stop(record):
        if record.epoch + 1 == epochs:
            raise Stop

    memory, method = Memory(), run.recipe.method.build(FakeClip(), run.recipe.training.seed)
    data = fake_clip.training_features()
    with pytest.raises(Stop):
        fit(method, data, run.recipe.training, checkpoints=memory, on_epoch=stop)
    return memory.data


def test_runs_equal_fit_and_lie_in_the_store(store):
    results = train_runs(RUNS, load_inputs, store, inputs=INPUTS, checkpoint_pause_s=0)
    assert [*results] == [run.name for run in RUNS]
    for run in RUNS:
        check_equal(results[run.name], alone(run))
        check_equal(load_run(store, f"train/{run.name}"), alone(run))
        assert files(store, f"train/{run.name}") == FILES  # no checkpoint is left
        settings = json.loads(store.read(f"train/{run.name}/settings.json"))
        assert settings == {"recipe": to_dict(run.recipe), "inputs": INPUTS}
        assert results[run.name].recognizer.backbone == FakeClip.identity


@pytest.mark.parametrize("after", [2, 6, 8, 14])
def test_broken_off_goes_on_where_it_was(store, after):
    """In the first run's first epoch, in its last ones, and in the second run."""
    arguments = dict(inputs=INPUTS, checkpoint_pause_s=0)
    runs = RUNS[:2]
    with pytest.raises(Died):
        train_runs(runs, partial(load_inputs_and_die, after), store, "fits", **arguments)
    seen = []

    def counted(work):
        from t2ipal.training.runs import train_work

        train_work(work, on_epoch=lambda run, record: seen.append((run.name, record.epoch)))

    results = train_runs(runs, load_inputs, store, "fits", workers=counted, **arguments)
    for run in runs:
        check_equal(results[run.name], alone(run))
        assert files(store, f"fits/{run.name}") == FILES
    assert len(seen) < 6 or after == 2


def test_a_checkpoint_is_removed_where_the_run_is_finished(store):
    """And where it cannot be, the run is finished all the same."""
    run = RUNS[0]
    store.write(f"train/{run.name}/{CHECKPOINT}", checkpoint(run))
    results = train_runs([run], load_inputs, store, inputs=INPUTS)
    check_equal(results[run.name], alone(run))
    assert files(store, f"train/{run.name}") == FILES


def test_who_may_not_delete_gets_a_recognizer_all_the_same(tmp_path, monkeypatch):
    def refuse(self, key):
        raise PermissionError("Access was refused")

    monkeypatch.setattr(Store, "delete", refuse)
    store, run = Store(tmp_path), RUNS[0]
    store.write(f"train/{run.name}/{CHECKPOINT}", checkpoint(run))
    results = train_runs([run], load_inputs, store, inputs=INPUTS)
    check_equal(results[run.name], alone(run))
    assert files(store, f"train/{run.name}") == FILES | {CHECKPOINT}
    again = train_runs([run], None, store, inputs=INPUTS)  # it is not looked at any more
    check_equal(again[run.name], alone(run))


def test_a_checkpoint_of_the_version_before_is_gone_on_with(store):
    """It lay below a folder `ray`, in one named after all settings; also after a killed worker."""
    run = RUNS[0]
    settings = {run.name: {"recipe": to_dict(run.recipe), "inputs": INPUTS}}
    place = f"train/ray/{fingerprint(settings)}"
    store.write(f"{place}/checkpoint_000000/{run.name}/checkpoint.pt", checkpoint(run, epochs=1))
    store.write(f"{place}/checkpoint_000001/{run.name}/checkpoint.pt", checkpoint(run, epochs=2))
    store.write(f"{place}/checkpoint_000001/other-seed0/checkpoint.pt", b"of another run")
    seen = []

    def counted(work):
        from t2ipal.training.runs import train_work

        train_work(work, on_epoch=lambda run, record: seen.append(record.epoch))

    results = train_runs([run], load_inputs, store, inputs=INPUTS, workers=counted)
    check_equal(results[run.name], alone(run))
    assert seen == [2]


def test_checkpoints_are_not_written_too_often(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("t2ipal.training.runs.time.monotonic", lambda: now[0])
    store = Store(tmp_path)
    work = TrainingWork(tuple(RUNS[:1]), load_inputs, store, "", {RUNS[0].name: {}}, "ray/x/", 10.0)
    kept = StoredCheckpoints(work, RUNS[0].name)
    assert str(kept) == f"{tmp_path}/t2ipal-seed0/checkpoint.pt"
    assert kept.read() is None
    now[0] += 9.9
    assert not kept.is_due(False)
    now[0] += 0.1
    assert kept.is_due(False) and not kept.is_due(True)  # the recognizer comes after the last
    kept.write(b"state")
    assert not kept.is_due(False) and kept.read() == b"state"
    leaving = StoredCheckpoints(work, RUNS[0].name, lambda: True)
    assert leaving.is_due(False) and not leaving.is_due(True)  # the machine is about to go
    assert store.exists("t2ipal-seed0/settings.json")
    kept.remove()
    kept.remove()
    assert kept.read() is None


def test_done_is_done_and_other_settings_are_an_error(store):
    first = train_runs(RUNS, load_inputs, store, inputs=INPUTS)
    times = store.times()
    again = train_runs(RUNS, None, store, inputs=INPUTS)
    assert store.times() == times
    for run in RUNS:
        check_equal(again[run.name], first[run.name])
    changed = [TrainingRun(RUNS[0].name, override(RECIPE, {"method.sharpness": 2.0}))]
    message = r"train/t2ipal-seed0 holds .* \(recipe.method.sharpness: 5.5 there, 2.0 here\)"
    with pytest.raises(ValueError, match=message):
        train_runs(changed, load_inputs, store, inputs=INPUTS)
    with pytest.raises(ValueError, match=r"inputs.num_captions: 40 there, 50 here"):
        train_runs(RUNS, load_inputs, store, inputs=INPUTS | {"num_captions": 50})


def test_one_more_run_leaves_the_others_as_they_are(store):
    train_runs(RUNS[:1], load_inputs, store, inputs=INPUTS)
    times = store.times()
    train_runs(RUNS[:2], load_inputs, store, inputs=INPUTS)
    now = store.times()
    assert {key: now[key] for key in times} == times and len(now) == 2 * len(times)


def test_settings_that_could_not_be_trained_bind_nobody(store):
    """What is refused leaves nothing, so that the remedy it names is not refused as well."""

    def no_images():
        clip, data = load_inputs()
        return clip, fake_clip.TrainingFeatures(data.texts, None, data.image_of_caption)

    run = RUNS[0]
    with pytest.raises(ValueError, match="or set image_weight to 0"):
        train_runs([run], no_images, store, inputs=INPUTS)
    assert store.list() == []
    changed = TrainingRun(run.name, override(RECIPE, {"method.image_weight": 0.0}))
    results = train_runs([changed], no_images, store, inputs=INPUTS)
    assert isinstance(results[run.name].recognizer, Recognizer)


def test_the_store_itself_may_be_the_folder(tmp_path):
    store = Store(tmp_path)
    results = train_runs(RUNS[:1], load_inputs, store, "", inputs=INPUTS, workers=in_process)
    assert {path.name for path in (tmp_path / "t2ipal-seed0").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["t2ipal-seed0"]
    check_equal(load_run(Store(tmp_path / "t2ipal-seed0"), ""), results["t2ipal-seed0"])


@pytest.mark.parametrize("name", ["settings.json", "history.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name):
    store, run = Store(tmp_path), RUNS[0]
    train_runs([run], load_inputs, store, inputs=INPUTS)
    store.write(f"train/{run.name}/{name}", b'{"history": [')
    with pytest.raises(ValueError, match=rf"{name} in .* is damaged.* run jobs/train.py again"):
        train_runs([run], load_inputs, store, inputs=INPUTS)


def test_bad_input(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="must be runs to train"):
        train_runs([], load_inputs, store, inputs=INPUTS)
    with pytest.raises(ValueError, match="names of their own"):
        train_runs([RUNS[0], RUNS[0]], load_inputs, store, inputs=INPUTS)
    with pytest.raises(FileNotFoundError, match="No recognizer"):
        load_run(store, "")
