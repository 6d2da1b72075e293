"""Which model a run is of: it is kept, and another one of the same name is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from painter import GIVEN, Painter, contents, refusal
from tiny_stable_diffusion import write_tiny_stable_diffusion

from benchmarks.chaos.checks import run_contents
from t2ipal.commands import repair, synthesize
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.identity import identify_model, pinned
from t2ipal.store import Store
from t2ipal.synthesis.making import add_images
from t2ipal.synthesis.worker import exact_synthesizer

OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
LIGHT = "own/light/light.safetensors"


def write_model(folder, weights=b"first"):
    """A pipeline folder as far as its identity goes."""
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet/config.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(weights)
    return folder


def cached(repository, commit):
    """The folder of a commit in the hub's cache; the main branch is moved to it."""
    place = f"{constants.HF_HUB_CACHE}/models--{repository.replace('/', '--')}"
    main = Path(place)
    (main / "refs").mkdir(parents=True, exist_ok=True)
    (main / "refs/main").write_text(commit)
    return main / "snapshots" / commit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with captions and a model, whose images are painted."""
    (tmp_path / "captions.txt").write_text("a dog on a boat\ntwo cats\na bus\n")
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    return tmp_path


@pytest.fixture
def offline(folder, monkeypatch):
    """No hub, and an empty cache of it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    return folder


def draw(*words):
    return synthesize.main([*f"{GIVEN} run".split(), *words])


def refused(*words):
    return refusal(synthesize.main, f"{GIVEN} run", *words)


def model_of(name="run"):
    return json.loads(Store(name).read("config.json"))["model"]


def test_a_folder_that_was_changed_is_refused_until_it_is_as_it_was(folder):
    draw("--pipeline", "model", "--num-captions", "2")
    begun, before = model_of()["pipeline"], contents(folder / "run")
    (folder / WEIGHTS.replace("unet", "model/unet", 1)).write_bytes(b"other")
    now = identify_model(SynthesisConfig("model"))["pipeline"]
    assert begun != now and begun.startswith("sha256 ")
    difference = f"Differences: model.pipeline: {begun!r} there, {now!r} here."
    message = refused("--pipeline model")
    assert difference in message and "bring back those files" in message
    only = refusal(synthesize.main, "--output run --only 00000-00000")
    assert f"pipeline model must be {begun}, with which the run was begun, got {now}." in only
    with pytest.raises(ValueError, match="with which the run was begun"):
        add_images(Store("run"), {0: 1})
    assert refusal(repair.main, "--in-process --run run") == only
    with pytest.raises(ValueError, match="with which the run was begun"):
        exact_synthesizer(SynthesisConfig("model"), {"pipeline": begun})
    assert contents(folder / "run") == before

    # Elsewhere the same files are the same model.
    (folder / "model/README.md").write_text("a note")
    write_model(folder / "moved")
    assert draw("--pipeline", "moved")["num_shards_skipped"] == 1
    assert f"| `model.pipeline` | {begun} |" in Store("run").read("README.md").decode()
    shutil.rmtree(folder / "model")
    write_model(folder / "model")
    assert draw("--pipeline", "model")["num_shards_skipped"] == 2


def test_weights_of_the_unet_are_part_of_the_model(folder):
    (folder / "unet.safetensors").write_bytes(b"first")
    words = "--pipeline", "model", "--unet-weights", "unet.safetensors"
    draw(*words, "--num-captions", "2")
    begun = model_of()
    assert {*begun} == {"pipeline", "unet_weights"}
    (folder / "unet.safetensors").write_bytes(b"other")
    message = refused(*words)
    assert f"model.unet_weights: {begun['unet_weights']!r} there" in message
    assert "model.pipeline" not in message


def write_vae(folder, weights=b"first", kind="AutoencoderKL"):
    """An autoencoder's folder as far as its identity goes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": kind}))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    return folder


def test_an_autoencoder_is_part_of_the_model(folder):
    write_vae(folder / "vae")
    words = "--pipeline", "model", "--vae", "vae"
    draw(*words, "--num-captions", "2")
    begun, before = model_of(), contents(folder / "run")
    assert {*begun} == {"pipeline", "vae"} and begun["vae"].startswith("sha256 ")
    assert "synthesis.vae: 'vae' there, None here" in refused("--pipeline model")
    write_vae(folder / "other", b"other")
    assert "synthesis.vae: 'vae' there, 'other' here" in refused("--pipeline model --vae other")
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"other")
    message = refused(*words)
    assert f"model.vae: {begun['vae']!r} there" in message and "model.pipeline" not in message
    only = refusal(synthesize.main, "--output run --only 00000-00000")
    assert f"vae vae must be {begun['vae']}, with which the run was begun, got sha256 " in only
    assert contents(folder / "run") == before
    # Elsewhere the same files are the same one.
    write_vae(folder / "moved")
    assert draw("--pipeline", "model", "--vae", "moved")["num_shards_skipped"] == 1
    assert f"| `model.vae` | {begun['vae']} |" in Store("run").read("README.md").decode()


def test_an_autoencoder_of_the_hub_is_pinned(offline):
    write_vae(cached("own/vae", OLD))
    for name in ("own/vae", "own/vae@main", f"own/vae@{OLD}"):
        config = SynthesisConfig("model", vae=name)
        model = identify_model(config)
        assert model["vae"] == f"commit {OLD}"
        assert pinned(config, model).vae == f"own/vae@{OLD}"
    draw("--pipeline", "model", "--vae", "own/vae", "--num-captions", "2")
    write_vae(cached("own/vae", NEW), b"other")
    message = refused("--pipeline model --vae own/vae")
    assert f"model.vae: 'commit {OLD}' there, 'commit {NEW}' here" in message
    assert "owner/name@commit in vae" in message
    assert draw("--pipeline", "model", "--vae", f"own/vae@{OLD}")["num_shards_skipped"] == 1
    assert "own/vae at revision v2 must be in" in refused("--pipeline model --vae own/vae@v2")
    message = "vae must be a folder that is there or a name of the hub, got own/vae/file."
    assert refused("--pipeline model --vae own/vae/file") == message


def test_an_autoencoder_of_the_cache_is_loaded_at_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = write_tiny_stable_diffusion(tmp_path / "model")
    cached("own/vae", OLD).parent.mkdir(parents=True)
    shutil.copytree(model / "vae", cached("own/vae", OLD))
    config = SynthesisConfig(str(model), vae="own/vae")
    found = identify_model(config)
    write_vae(cached("own/vae", NEW), b"no weights at all")
    assert exact_synthesizer(config, found).config.vae == f"own/vae@{OLD}"


def test_a_run_from_before_models_were_kept_goes_on(folder):
    draw("--pipeline", "model", "--num-captions", "2")
    for name in ("config.json", "manifest.json"):
        values = json.loads((folder / "run" / name).read_text())
        values.get("settings", values).pop("model")
        (folder / "run" / name).write_text(json.dumps(values))
    before = run_contents(Store("run"))
    shutil.rmtree(folder / "model")
    write_model(folder / "model", b"other")
    assert draw("--pipeline", "model")["num_shards_skipped"] == 1
    after = run_contents(Store("run"))
    kept = [key for key in before if key.startswith("images/") or key == "config.json"]
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert "model" not in json.loads(after["manifest.json"])["settings"]
    add_images(Store("run"), {0: 1})
    assert draw("--pipeline", "model")["num_shards_skipped"] == 3


def test_a_name_of_the_hub_is_kept_by_its_commit(offline):
    write_model(cached("own/tiny", OLD))
    draw("--pipeline", "own/tiny", "--num-captions", "2")
    assert model_of() == {"pipeline": f"commit {OLD}"}
    before = contents(offline / "run")
    write_model(cached("own/tiny", NEW), b"other")
    message = refused("--pipeline own/tiny")
    assert f"model.pipeline: 'commit {OLD}' there, 'commit {NEW}' here" in message
    assert "To go on, ask for that commit (revision, or" in message
    message = refused("--pipeline own/tiny --revision v2")
    assert message == (
        f"own/tiny at revision v2 must be in {offline}/hub, the hub's cache, for HF_HUB_OFFLINE is "
        "set; model_index.json is not there. Name a revision that is, or unset HF_HUB_OFFLINE once."
    )
    message = refused(f"--pipeline own/tiny --revision {NEW}")
    assert f"synthesis.revision: None there, '{NEW}' here" in message
    assert contents(offline / "run") == before
    # What was done from then on is done from that commit, by the name that the run has for it.
    summary = draw("--pipeline", "own/tiny", "--revision", OLD)
    assert (summary["num_shards_skipped"], summary["num_shards"]) == (1, 2)
    config = json.loads((offline / "run/config.json").read_text())
    assert config["synthesis"]["revision"] is None
    assert synthesize.main(["--output", "run", "--only", "00000-00000"])["same_as_stored"]


def test_weights_of_the_hub_are_pinned_too(offline):
    (light := cached("own/light", OLD)).mkdir(parents=True)
    (light / "light.safetensors").write_bytes(b"light")
    for weights in (LIGHT, LIGHT.replace("light/", "light@main/", 1)):
        config = SynthesisConfig("model", unet_weights=weights)
        model = identify_model(config)
        assert model["unet_weights"] == f"commit {OLD}"
        assert pinned(config, model).unet_weights == f"own/light@{OLD}/light.safetensors"
    with pytest.raises(FileNotFoundError, match=r"own/light at revision v2 .* light\.safetensors"):
        identify_model(SynthesisConfig("model", unet_weights="own/light@v2/light.safetensors"))


def test_a_model_of_the_cache_is_loaded_at_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    write_tiny_stable_diffusion(cached("own/tiny", OLD))
    config = SynthesisConfig("own/tiny")
    model = identify_model(config)
    write_model(cached("own/tiny", NEW), b"no weights at all")
    synthesizer = exact_synthesizer(config, model)
    assert synthesizer.config.revision == OLD
    assert {*synthesizer.versions} == {"torch", "diffusers", "device", "precision"}
    assert synthesizer.versions["precision"] in ("fp32", "bf16")
    assert OLD in synthesizer.pipeline.vae.config._name_or_path


def test_what_the_hub_says_of_a_name(folder, monkeypatch):
    answers = {"own/tiny": SimpleNamespace(sha=NEW, siblings=[])}

    def model_info(self, name, revision):
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name]

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert identify_model(SynthesisConfig("own/tiny")) == {"pipeline": f"commit {NEW}"}
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    for error, message in (
        (
            huggingface_hub.errors.RevisionNotFoundError("404", response=response),
            "revision must be a branch, tag or commit of own/tiny, got v2.",
        ),
        (
            huggingface_hub.errors.RepositoryNotFoundError("404", response=response),
            "The hub shows no model own/tiny. Give its owner/name there, a folder that is here, or "
            "log in by `hf auth login` to a model that asks for it.",
        ),
        (
            huggingface_hub.errors.HTTPError("no route"),
            "The hub did not say what own/tiny is: no route. Try again, name a folder, or set "
            "HF_HUB_OFFLINE=1 to take what its cache on this machine holds.",
        ),
    ):
        answers["own/tiny"] = error
        assert refused("--pipeline own/tiny --revision v2") == message
    message = "pipeline must be a folder that is there or a name of the hub, got a/b/c."
    assert refused("--pipeline a/b/c") == message
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--pipeline model --revision v2",
            "revision must be left out with a folder, which has none, got v2 with model. A model "
            "of the hub has revisions.",
        ),
        (
            "--pipeline ./nope",
            "A pipeline folder must hold model_index.json; nope does not. Give a folder written by "
            "diffusers' save_pretrained, a hub name, or pictovoc.",
        ),
        (
            "--unet-weights ./nope",
            "unet_weights must be a file or owner/name@revision/file, got ./nope.",
        ),
        (
            "--pipeline model --vae ./nope",
            "vae must be a folder that holds config.json, or owner/name@revision of the hub; nope "
            "does not. Give a folder written by diffusers' save_pretrained.",
        ),
        (
            "--pipeline model --vae model/unet",
            "vae must be an AutoencoderKL or AutoencoderTiny, got a None in model/unet.",
        ),
        (
            "--acceleration.decode-bf16",
            "acceleration.decode_bf16 needs precision fp16, got auto: other precisions decode in "
            "their own, which does not overflow.",
        ),
        (
            "--class-prompts dog cat --composition 0.5",
            "class_prompts must hold one prompt for each of the 20 classes of the vocabulary, in "
            "its order, got 2.",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_ray_starts(folder, monkeypatch, words, message):
    monkeypatch.setattr("t2ipal.engine.session.connect", None)
    given = f"{GIVEN} run".replace("--in-process ", "")
    assert refusal(synthesize.main, given, words) == message
    assert not (folder / "run").exists()
