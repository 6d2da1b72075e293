"""Pipelines that a synthesis cannot use: named before an image is made, and no pickle is opened."""

import json
import os
import pickle
import shutil
from typing import Any

import pytest
import tiny_stable_diffusion
from painter import contents, refusal

from t2ipal.commands import synthesize
from t2ipal.store import Store


def without(name):
    def damage(model):
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def holding(name, content):
    def damage(model):
        (model / name).write_bytes(content)

    return damage


def cut_short(name):
    def damage(model):
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: len(data) // 2])

    return damage


def naming(**values):
    def damage(model):
        path = model / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


class Trap:
    """What makes a folder of the working directory when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def pickled(name, keep_name):
    def damage(model):
        path = model / name
        path.unlink()
        path = path if keep_name else path.with_suffix(".bin")
        path.write_bytes(pickle.dumps(Trap()))

    return damage


UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def lacks(part, file):
    return (
        f"The pipeline {{model}} could not be loaded: Error no file named {file} found in "
        f"directory {{model}}/{part}."
    )


def needs(part, file):
    return (
        f"{{model}} must hold {part}/{file}, for its model_index.json names the {part}. Copy the "
        "whole folder."
    )


CUT = (
    f"The weights in {{model}} do not fit: Unable to load weights from checkpoint file for "
    f"'{{model}}/{VAE}' at '{{model}}/{VAE}'."
)
CUT_TEXT = (
    "The weights in {model} do not fit: Error while deserializing header: incomplete metadata, "
    "file not fully covered"
)
CONVERT = " A .bin file may run code when it is read: convert it to safetensors."
NO_JSON = (
    "{model}/model_index.json is no valid JSON: Expecting property name enclosed in double quotes: "
    "line 1 column 2 (char 1)."
)
NO_CLASS = "{model}/model_index.json must name the pipeline's _class_name, as diffusers writes it."
NO_ATTRIBUTE = (
    "The pipeline {model} could not be loaded: module diffusers has no attribute StableDifusion"
)
SIZE = (
    "image_size_px must be a multiple of 16, by which the autoencoder of {model} shrinks, got 40."
)
STEPS = "num_inference_steps must be < 1000, the steps that {model} was trained with, got 1000."


def untouched(model):
    """The folder is right, and the arguments are not."""


MODELS = [
    (without("unet/config.json"), "", needs("unet", "config.json")),
    (without(UNET), "", lacks("unet", WEIGHTS)),
    (without(VAE), "", lacks("vae", WEIGHTS)),
    (without(TEXT), "", lacks("text_encoder", "model.safetensors")),
    (without("text_encoder/config.json"), "", needs("text_encoder", "config.json")),
    (without("tokenizer"), "", needs("tokenizer", "tokenizer_config.json")),
    (
        without("tokenizer/tokenizer.json"),
        "",
        "No vocabulary of the tokenizer in {model}. Add its files.",
    ),
    (without("scheduler"), "", needs("scheduler", "scheduler_config.json")),
    (cut_short(VAE), "", CUT),
    (cut_short(TEXT), "", CUT_TEXT),
    (pickled(UNET, keep_name=False), "", lacks("unet", WEIGHTS) + CONVERT),
    (pickled(VAE, keep_name=True), "", CUT),
    (holding("model_index.json", b"{br"), "", NO_JSON),
    (
        holding("model_index.json", b"[]"),
        "",
        "{model}/model_index.json must be a JSON mapping, got [].",
    ),
    (holding("model_index.json", b"{}"), "", NO_CLASS),
    (
        holding("unet/config.json", b"5"),
        "",
        "{model}/unet/config.json must be a JSON mapping, got 5.",
    ),
    (naming(_class_name="StableDifusion"), "", NO_ATTRIBUTE),
    (untouched, "--image-size-px 40", SIZE),
    (untouched, "--num-inference-steps 1000", STEPS),
]
"""What is done to a pipeline folder, more arguments, and the message."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A tiny Stable Diffusion whose autoencoder shrinks by 16."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    from diffusers import AutoencoderKL

    kind: Any = AutoencoderKL  # its annotations know one block only
    autoencoder = kind(
        block_out_channels=(4,) * 5,
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        latent_channels=4,
        norm_num_groups=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_stable_diffusion, "_vae", lambda: autoencoder)
        folder = tmp_path_factory.mktemp("pipeline")
        return tiny_stable_diffusion.write_tiny_stable_diffusion(folder)


@pytest.mark.parametrize(("damage", "changes", "message"), MODELS)
def test_a_pipeline_that_cannot_be_used(pipeline, tmp_path, monkeypatch, damage, changes, message):
    model = tmp_path / "model"
    shutil.copytree(pipeline, model)
    damage(model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("a dog\n")
    before = contents(tmp_path)
    given = f"--captions captions.txt --output new --in-process --pipeline {model} {changes}"
    shown = refusal(synthesize.main, given)
    assert shown == message.replace("{model}", str(model))
    assert not (tmp_path / "sprung").exists()
    assert not Store(tmp_path / "new").list("images/")
    assert {path: data for path, data in contents(tmp_path).items() if path in before} == before
