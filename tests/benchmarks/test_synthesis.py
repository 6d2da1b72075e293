import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import synthesis
from benchmarks.synthesis_devices import (
    MLPERF,
    DeviceSizes,
    Flops,
    count_flops,
    measure_embedded,
    measure_models,
    parse_changes,
    take_turns,
)
from benchmarks.synthesis_pipelines import compare, measure_pipelines, micro_batches
from benchmarks.synthesis_stub import HeldDevice, PipelineSizes, photograph
from benchmarks.synthesis_table import Row, markdown, ratio
from benchmarks.true_size_models import SD15, SD21, SDXL, write_model
from t2ipal.commands import demo
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer

TEXT = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "projection_dim": 8,
}  # fmt: skip
TINY_VAE = {
    "block_out_channels": (4, 4), "layers_per_block": 1, "norm_num_groups": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
TINY_UNET = {
    "sample_size": 16, "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 2,
}  # fmt: skip
TINY_SD15 = replace(
    SD15, image_size_px=32, text_encoders=(TEXT,), vae={**SD15.vae, **TINY_VAE},
    unet={**SD15.unet, **TINY_UNET, "cross_attention_dim": 8}, unet_tflop=None,
)  # fmt: skip
TINY_SDXL = replace(
    SDXL, image_size_px=32, text_encoders=(TEXT, TEXT), vae={**SDXL.vae, **TINY_VAE},
    unet={
        **SDXL.unet, **TINY_UNET, "cross_attention_dim": 16, "transformer_layers_per_block": 1,
        "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 8,
    }, unet_tflop=None,
)  # fmt: skip
SMALL = DeviceSizes(
    device_batches=(1, 2), num_inference_steps=2, precision="fp32", matrix_size=64,
    options=("guidance_until=0.5", "no.such=1", "scheduler=ddim,composition=1"),
)  # fmt: skip


class Shell:
    """Holds attributes."""


@pytest.mark.parametrize(
    ("size", "millions", "decoder"),
    [
        (SD15, [860, 84, 123], 2.51),
        (SD21, [866, 84, 340], 5.78),
        (SDXL, [2567, 84, 123, 695], 10.47),
    ],
)
def test_true_sizes_have_the_published_weights_and_operations(size, millions, decoder):
    """Counted without computing anything, on the meta device."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    pipeline = Shell()
    pipeline.vae_scale_factor = 8
    pipeline.tokenizer = Shell()
    pipeline.tokenizer.model_max_length = 77
    with torch.device("meta"):
        pipeline.unet = diffusers.UNet2DConditionModel(**size.unet)
        pipeline.vae = diffusers.AutoencoderKL(**size.vae)
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        texts = [
            kind(CLIPTextConfig(vocab_size=49408, **values))
            for kind, values in zip(kinds, size.text_encoders)
        ]
    pipeline.text_encoder_2 = texts[-1]
    parts = (pipeline.unet, pipeline.vae, *texts)
    numbers = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert [round(number / 1e6) for number in numbers] == millions
    flops = count_flops(pipeline, size.image_size_px)
    if size.unet_tflop is not None:
        assert flops.unet / 1e12 == pytest.approx(size.unet_tflop, rel=0.02)
    assert flops.vae / 1e12 == pytest.approx(decoder, rel=0.02)


def test_operations_of_an_image():
    assert Flops(2.0, 3.0).image(SynthesisConfig(num_inference_steps=20)) == 83


TINY_SD21 = replace(
    TINY_SD15, prediction_type="v_prediction",
    unet={**TINY_SD15.unet, "use_linear_projection": True, "upcast_attention": True},
)  # fmt: skip


@pytest.mark.parametrize("size", [TINY_SD15, TINY_SD21, TINY_SDXL])
def test_a_random_model_is_loaded_as_any_other(tmp_path, size):
    write_model(size, tmp_path, "cpu", torch.float32)
    assert torch.get_default_dtype() == torch.float32
    config = SynthesisConfig(pipeline=str(tmp_path), scheduler="euler", num_inference_steps=2)
    pipeline = load_pipeline(config, torch.float32)
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.scheduler.config.prediction_type == size.prediction_type
    batch = micro_batches(["a dog", "a cat"], 2)[0]
    images = Synthesizer(replace(config, image_size_px=32), "cpu")(batch)["image"]
    assert images.shape == (2, 32, 32, 3)
    # A product of an m x k with a k x n matrix is 2 m k n operations: the text's keys and values.
    cross = [m for m in pipeline.unet.modules() if getattr(m, "is_cross_attention", False)]
    floor = sum(2 * 77 * (m.to_k.weight.numel() + m.to_v.weight.numel()) for m in cross)
    assert count_flops(pipeline, 32).unet > floor > 0


def test_part_c_at_tiny_sizes():
    rows = measure_models([TINY_SD15, TINY_SDXL], SMALL, rounds=2, device="cpu")
    for name in ("SD1.5", "SDXL"):
        found = {row.what: row for row in rows if row.subject == name}
        for batch in (1, 2):
            for what in ("stock diffusers", "synthesizer"):
                assert len(found[f"{what}, batch {batch}, images/s"].values) == 2
        over = found["**synthesizer at its best batch over stock diffusers at batch 1**"]
        ours = max(found[f"synthesizer, batch {batch}, images/s"].median for batch in (1, 2))
        assert max(over.values) > 0 and ours > 0
        assert 0 < found["**model FLOP/s over the matrix product's**"].median < 1
        option = found["**guidance_until=0.5: speed over that without**"]
        assert len(option.values) == 2 and "pixels differ by" in option.note
        missing = found["**no.such=1: speed over that without**"]
        assert missing.values == () and missing.note == "no such option: no.such"
        failing = found["**scheduler=ddim, composition=1: speed over that without**"]
        assert failing.values == ()
        assert failing.note == "fails here: ValueError: composition needs class_prompts, got none."
    assert "product of 64 x 64 matrices" in rows[0].what and rows[0].median > 0


def test_a_batch_that_does_not_fit_ends_the_race(tmp_path, monkeypatch):
    def no_room(calls, rounds):
        if "synthesizer" in calls and calls["synthesizer"].args[0]["k"].size > 1:
            raise torch.OutOfMemoryError("too large")
        return take_turns(calls, rounds)

    monkeypatch.setattr("benchmarks.synthesis_devices.take_turns", no_room)
    options = replace(SMALL, options=())
    rows = measure_models([TINY_SD15], options, rounds=1, device="cpu")
    raced = [row.what for row in rows if ", batch" in row.what]
    assert raced == ["stock diffusers, batch 1, images/s", "synthesizer, batch 1, images/s"]


def test_options_of_the_embedded_model():
    threads = torch.get_num_threads()
    config = replace(synthesis.EMBEDDED, batch_size=2, num_inference_steps=2)
    options = replace(SMALL, options=("seed=0", "seed=1", "guidance_until=0.5"))
    same, *others = measure_embedded(config, options, rounds=1)
    assert "pixels differ by 0.00 of 255" in same.note and len(others) == 2
    assert not any("pixels differ by 0.00 of 255" in other.note for other in others)
    assert torch.get_num_threads() == threads


def test_stub_holds_its_device_for_launch_and_images(monkeypatch):
    slept = []
    monkeypatch.setattr("benchmarks.synthesis_stub.time.sleep", slept.append)
    stub = HeldDevice(SynthesisConfig(image_size_px=64), launch_seconds=0.3, image_seconds=0.25)
    made = stub(micro_batches(["a dog"] * 4, 4)[0])
    assert slept == [1.3]
    assert made["image"].shape == (4, 64, 64, 3)
    assert (made["image"] == photograph(64)).all() and np.ptp(made["image"]) > 100


def test_pipelines_with_a_stub(ray_session):
    sizes = PipelineSizes(
        num_images=10, num_obvious=2, images_per_shard=4, generators=("stub",), image_seconds=0.02,
        launch_seconds=0.1, stub_batch_size=4, stub_size_px=32,
    )  # fmt: skip
    rows = {r.what: r for r in measure_pipelines(sizes, synthesis.EMBEDDED, 1, ("a", "b"))}
    # 10 images are 3 calls: 3 x 0.1 + 10 x 0.02 seconds, and nothing beats the device.
    most = 10 / 0.5
    bare, whole = (rows[f"{n}, images/s"].median for n in ("bare loop", "whole pipeline, 1 worker"))
    assert most / 2 < bare <= most and 0 < whole <= most
    assert rows["obvious pipeline, 1 thread, images/s"].median <= 1 / 0.12
    assert rows["**1 worker over bare loop**"].values == (whole / bare,)
    assert "**1 worker over obvious pipeline with 1 thread**" in rows


def test_ratios_are_taken_round_by_round():
    rates = {
        "bare loop": [10.0, 20.0], "whole pipeline, 1 worker": [9.0, 22.0],
        "obvious pipeline, 1 thread": [3.0, 2.0],
    }  # fmt: skip
    rows = {row.what: row for row in compare("stub", rates)}
    assert rows["**1 worker over bare loop**"].values == (0.9, 1.1)
    assert rows["**1 worker over obvious pipeline with 1 thread**"].values == (3.0, 11.0)
    with pytest.raises(ValueError, match="zip"):
        ratio("a", "", Row("a", "", "", (1.0,)), Row("a", "", "", (1.0, 2.0)), "")


def test_table_says_what_was_not_measured():
    rows = [Row("a", "stub", "x", (1.0, 3.0, 2.0)), Row("c", "SDXL", "y", note="needs a GPU")]
    assert markdown(rows).splitlines()[2:] == [
        "| a | stub | x | 2 (1 to 3) |  |",
        "| c | SDXL | y | not measured | needs a GPU |",
    ]


def test_without_a_gpu_no_number_of_part_c_is_given(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = synthesis.main(["--parts", "c"])
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1]) == json.loads(json.dumps(result))
    rows = [line for line in printed[2:-1]]
    assert len(rows) == 2 * (5 + len(DeviceSizes().options))
    assert all("| not measured | needs a GPU" in row for row in rows)
    assert sum(MLPERF in row for row in rows) == 1


def test_part_c_needs_no_ray():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from benchmarks import synthesis; synthesis.main(['--parts', 'c'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_embedded_settings_are_those_of_the_demo():
    assert replace(demo.Options().synthesis, images_per_caption=1) == synthesis.EMBEDDED


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--parts", "e"], r"Unknown part 'e'\."),
        (["--models", "sd3"], r"Unknown model 'sd3'\. Did you mean"),
        (["--generators", "stubb"], r"Unknown generator 'stubb'\. Did you mean 'stub'\?"),
        (["--rounds", "0"], r"rounds must be > 0, got 0\."),
        (["--options", "compile"], r"An option must read name=value, got 'compile'\."),
    ],
)
def test_bad_input_is_named(flags, message):
    with pytest.raises(ValueError, match=message):
        synthesis.main(flags)


def test_changes_are_read_as_json_or_text():
    changes = parse_changes("a.b=true,c=3,d=int8")
    assert changes == {"a.b": True, "c": 3, "d": "int8"}
