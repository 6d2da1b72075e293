import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_stable_diffusion import WRITERS, write_tiny_stable_diffusion

from t2ipal.diffusion.config import AccelerationConfig, SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.rounding import ROUNDED, round_weights, stored_types
from t2ipal.diffusion.synthesizer import Synthesizer

BATCH = {
    "caption_id": np.array(["one", "two"]),
    "caption": np.array(["a dog", "two cats"]),
    "k": np.zeros(2, dtype=np.int64),
    "labels": [(0,), (0, 1)],
}


def store_as(folder, dtype, parts=ROUNDED):
    """Writes the weights of some parts in another precision."""
    for name in parts:
        for path in (folder / name).glob("*.safetensors"):
            weights = {key: value.to(dtype) for key, value in load_file(path).items()}
            save_file(weights, path, metadata={"format": "pt"})


def config(folder, **changes):
    values = {"pipeline": str(folder), "num_inference_steps": 2, "precision": "bf16", **changes}
    return SynthesisConfig(**values)


def bytes_of(pipeline):
    return sum(
        value.nbytes for name in ROUNDED if hasattr(pipeline, name)
        for value in getattr(pipeline, name).parameters()
    )  # fmt: skip


FAST = AccelerationConfig(channels_last=True, fuse_qkv=True, cache_text=True, deep_cache=2)
COMPOSED = {"composition": 1.0, "class_prompts": ("a dog", "a cat")}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("stored", "precision", "changes"),
    [
        (torch.float32, "bf16", {}),
        (torch.float16, "bf16", {"acceleration": FAST}),
        (torch.float16, "fp16", {}),
        (torch.bfloat16, "fp16", COMPOSED),
    ],
)
def test_rounded_weights_draw_the_same_images(
    kind, stored, precision, changes, tmp_path, monkeypatch
):
    store_as(WRITERS[kind](tmp_path), stored)
    chosen = config(tmp_path, precision=precision, **changes)
    rounded = Synthesizer(chosen, "cpu")
    unet = rounded.pipeline.unet
    assert unet.dtype == rounded.pipeline.text_encoder.dtype == torch.float32
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {value.dtype for value in unet.parameters()} == {torch.float32, half}
    monkeypatch.setattr("t2ipal.diffusion.pipelines.round_weights", lambda *_: None)
    monkeypatch.setattr("t2ipal.diffusion.pipelines.stored_types", lambda _: {})
    plain = Synthesizer(chosen, "cpu")
    assert {value.dtype for value in plain.pipeline.unet.parameters()} == {torch.float32}
    assert bytes_of(rounded.pipeline) < 0.75 * bytes_of(plain.pipeline)
    assert np.array_equal(rounded(BATCH)["image"], plain(BATCH)["image"])


def test_only_what_is_stored_in_one_half_precision_is_loaded_in_it(tmp_path):
    folder = write_tiny_stable_diffusion(tmp_path)
    assert stored_types(folder) == {}
    store_as(folder, torch.float16, ["text_encoder"])
    assert stored_types(folder) == {"text_encoder": torch.float16}
    path = next((folder / "unet").glob("*.safetensors"))
    weights = load_file(path)
    weights["conv_in.bias"] = weights["conv_in.bias"].half()
    save_file(weights, path, metadata={"format": "pt"})
    assert stored_types(folder) == {"text_encoder": torch.float16}


def test_norms_and_the_first_layer_keep_their_precision():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(2, 2, 1), torch.nn.GroupNorm(1, 2), torch.nn.Conv2d(2, 2, 1)
    ).half()
    layers[1].weight.data.fill_(1 + 2**-10)
    round_weights(layers, torch.bfloat16)
    kinds = [{value.dtype for value in layer.parameters()} for layer in layers]
    assert kinds == [{torch.float32}, {torch.float32}, {torch.bfloat16}]
    assert (layers[1].weight == 1 + 2**-10).all()


def test_other_unet_weights_are_rounded_once(tmp_path):
    """Not to the precision that the pipeline's own ones are stored in, and then again."""
    folder = write_tiny_stable_diffusion(tmp_path / "pipeline")
    path = next((folder / "unet").glob("*.safetensors"))
    # 1 + 2^-8 is halfway between two numbers of bfloat16; a little more is rounded up.
    value = 1 + 2**-8 + 2**-14
    weights = {key: torch.full_like(old, value) for key, old in load_file(path).items()}
    save_file(weights, tmp_path / "other.safetensors")
    store_as(folder, torch.float16)
    chosen = config(folder, unet_weights=str(tmp_path / "other.safetensors"))
    unet = load_pipeline(chosen, torch.float32, torch.bfloat16).unet
    assert (unet.conv_out.weight == 1 + 2**-7).all()


def test_quantized_weights_are_not_rounded_before(tmp_path):
    folder = write_tiny_stable_diffusion(tmp_path)
    chosen = config(folder, acceleration=AccelerationConfig(quantize="int8"))
    unet = Synthesizer(chosen, "cpu").pipeline.unet
    assert {value.dtype for value in unet.parameters()} == {torch.float32}
