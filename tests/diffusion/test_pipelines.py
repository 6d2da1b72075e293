"""Autoencoders in place of a pipeline's own, and those that overflow in half precision."""

import json
import pickle
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_stable_diffusion import WRITERS, write_tiny_stable_diffusion_xl

from t2ipal.diffusion.acceleration import accelerate
from t2ipal.diffusion.config import AccelerationConfig, SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer

WEIGHTS = "diffusion_pytorch_model.safetensors"
BF16 = {"precision": "fp16", "acceleration": AccelerationConfig(decode_bf16=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny SDXL, whose decoder works up to 1e5 times larger numbers than others.

    As the one of SDXL it is made for single precision: half precision can hold its weights, but not
    what it computes.
    """
    folder = write_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("overflowing") / "pipeline")
    shutil.copytree(folder / "vae", folder.with_name("fixed"))
    tensors = load_file(folder / "vae" / WEIGHTS)
    tensors["decoder.conv_in.weight"] *= 1e5
    tensors["decoder.conv_in.bias"] *= 1e5
    assert all(tensor.half().isfinite().all() for tensor in tensors.values())
    save_file(tensors, folder / "vae" / WEIGHTS, metadata={"format": "pt"})
    assert json.loads((folder / "vae/config.json").read_text())["force_upcast"] is True
    return folder


@pytest.fixture
def vae(folder, tmp_path):
    """A copy of the pipeline's autoencoder with smaller numbers, to be damaged."""
    return shutil.copytree(folder.with_name("fixed"), tmp_path / "vae")


def config(folder, **changes):
    values: dict[str, Any] = {"num_inference_steps": 2, "precision": "fp32", **changes}
    return SynthesisConfig(pipeline=str(folder), **values)


def draw(folder, **changes):
    names = np.array(["a", "b", "c"])
    batch = {"caption_id": names, "caption": names, "k": np.zeros(3, int)}
    return Synthesizer(config(folder, **changes), "cpu")(batch)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_overflowing_autoencoder_decodes_in_bfloat16(folder):
    exact = draw(folder)
    assert exact["status"].tolist() == ["ok"] * 3 and exact["image"].std() > 5
    half = draw(folder, precision="fp16")
    assert half["reason"].tolist() == ["not finite"] * 3
    made = draw(folder, **BF16)
    assert made["status"].tolist() == ["ok"] * 3
    error = np.abs(made["image"].astype(int) - exact["image"])
    assert error.mean() < 1.5 and error.max() < 12


def test_bfloat16_takes_the_place_of_upcasting(folder):
    """The pipeline in half precision, as on a GPU: its latents are cast, and nothing else."""

    def images(decode_bf16):
        pipeline, seen = load_pipeline(config(folder), torch.float16), []
        accelerate(pipeline, AccelerationConfig(decode_bf16=decode_bf16))
        pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
        made = pipeline(
            "a dog", num_inference_steps=2, output_type="pt",
            generator=torch.Generator().manual_seed(0),
        ).images.float()  # fmt: skip
        assert seen == [torch.bfloat16 if decode_bf16 else torch.float32]
        assert pipeline.unet.dtype == torch.float16 and made.isfinite().all()
        return made

    torch.testing.assert_close(images(True), images(False), atol=0.03, rtol=0)


def test_bfloat16_where_it_makes_no_sense(folder, vae):
    for precision in ("fp32", "bf16", "auto"):
        message = f"decode_bf16 needs precision fp16, got {precision}: other precisions decode in"
        with pytest.raises(ValueError, match=message):
            config(folder, **{**BF16, "precision": precision})
    edit(vae / "config.json", force_upcast=False)
    message = f"decode_bf16 must be left out with {vae}, whose autoencoder decodes in fp16 as it is"
    with pytest.raises(ValueError, match=message):
        draw(folder, vae=str(vae), **BF16)


def test_another_autoencoder(folder, vae, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    shutil.rmtree(whole / "vae")
    shutil.copytree(vae, whole / "vae")
    for precision in ("fp32", "fp16"):
        made = draw(folder, precision=precision, vae=str(vae))
        assert made["status"].tolist() == ["ok"] * 3  # also where the pipeline's own overflows
        np.testing.assert_array_equal(made["image"], draw(whole, precision=precision)["image"])
    assert not np.array_equal(made["image"], draw(folder)["image"])
    assert config(folder, vae=str(vae)) != config(folder)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_tiny_autoencoder(write, tmp_path):
    """Of another class, with a scale of its own, and without attention."""
    folder = write(tmp_path / "pipeline")
    from diffusers import AutoencoderTiny

    kind: Any = AutoencoderTiny  # its annotations know four blocks only
    levels = {f"{part}_block_out_channels": (4, 4) for part in ("encoder", "decoder")}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    kind(**levels, **blocks).save_pretrained(tmp_path / "tiny")
    faster = AccelerationConfig(channels_last=True, fuse_qkv=True)
    made = draw(folder, vae=str(tmp_path / "tiny"), acceleration=faster)
    assert made["status"].tolist() == ["ok"] * 3 and made["image"].shape == (3, 32, 32, 3)


def with_values(**changes):
    return lambda vae: edit(vae / "config.json", **changes)


def without(name):
    return lambda vae: (vae / name).unlink()


def cut_short(vae):
    (vae / WEIGHTS).write_bytes((vae / WEIGHTS).read_bytes()[:500])


def pickled(vae):
    tensors = load_file(vae / WEIGHTS)
    (vae / WEIGHTS).unlink()
    (vae / WEIGHTS).with_suffix(".bin").write_bytes(pickle.dumps(tensors))


def incomplete(vae):
    tensors = load_file(vae / WEIGHTS)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, vae / WEIGHTS, metadata={"format": "pt"})


def written_anew(**changes):
    """An autoencoder of another shape, whole."""

    def write(vae):
        from diffusers import AutoencoderKL

        shutil.rmtree(vae)
        values = dict(AutoencoderKL.load_config(str(vae.with_name("before"))))
        AutoencoderKL.from_config({**values, **changes}).save_pretrained(vae)

    return write


OWN = "of the autoencoder of {pipeline}"
ANOTHER = "in {vae}: it decodes the latents of another model."
THREE = {
    "block_out_channels": (4, 4, 4),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}
CASES = {
    "class": (
        with_values(_class_name="UNet2DConditionModel"),
        "vae must be an AutoencoderKL or AutoencoderTiny, got a UNet2DConditionModel in {vae}.",
    ),
    "no class": (
        lambda vae: (vae / "config.json").write_text("{}"),
        "vae must be an AutoencoderKL or AutoencoderTiny, got a None in {vae}.",
    ),
    "no config": (
        without("config.json"),
        "vae must be a folder that holds config.json, or owner/name@revision of the hub; {vae} "
        "does not. Give a folder written by diffusers' save_pretrained.",
    ),
    "channels": (
        written_anew(latent_channels=16),
        f"vae must have the latent_channels {OWN}, 4, got 16 {ANOTHER}",
    ),
    "levels": (
        written_anew(**THREE),
        f"vae must have the factor by which images shrink {OWN}, 2, got 4 {ANOTHER}",
    ),
    "scale": (
        with_values(scaling_factor=0.13025),
        f"vae must have the scaling_factor {OWN}, 0.18215, got 0.13025 {ANOTHER}",
    ),
    "weights": (
        without(WEIGHTS),
        f"The autoencoder {{vae}} could not be loaded: Error no file named {WEIGHTS} found in "
        "directory {vae}.",
    ),
    "pickle": (
        pickled,
        f"The autoencoder {{vae}} could not be loaded: Error no file named {WEIGHTS} found in "
        "directory {vae}. A .bin file may run code when it is read: convert it to safetensors.",
    ),
    "cut": (cut_short, "The weights in {vae} do not fit: "),
    "shape": (with_values(latent_channels=8), "The weights in {vae} do not fit: "),
    "incomplete": (incomplete, "The weights in {vae} must be complete: "),
}


@pytest.mark.parametrize("case", CASES)
def test_an_autoencoder_that_cannot_be_used(folder, vae, case):
    damage, message = CASES[case]
    shutil.copytree(vae, vae.with_name("before"))
    damage(vae)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_pipeline(config(folder, vae=str(vae)), torch.float32)
    shown = message.format(vae=vae, pipeline=folder)
    assert str(caught.value).startswith(shown)
    assert not message.endswith(".") or str(caught.value) == shown


def test_what_is_no_autoencoder_at_all(folder):
    with pytest.raises(ValueError, match="vae must name a model or a folder, or be None, got ''"):
        config(folder, vae="")
    with pytest.raises(FileNotFoundError, match=rf"{folder} does not. Give {folder}/vae\.$"):
        load_pipeline(config(folder, vae=str(folder)), torch.float32)
    with pytest.raises(FileNotFoundError, match=r"config\.json, or owner/name@rev.*; nope does"):
        load_pipeline(config(folder, vae="./nope"), torch.float32)


def test_loading_is_silent(folder, capsys):
    """A job has a bar of its own, and its output is read by programs."""
    load_pipeline(config(folder), torch.float32)
    said = capsys.readouterr()
    assert said.out == said.err == ""
