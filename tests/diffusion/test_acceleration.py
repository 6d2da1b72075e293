import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filelock import Timeout
from safetensors.torch import load_file, save_file
from tiny_stable_diffusion import WRITERS, write_tiny_stable_diffusion

from t2ipal.config import to_dict
from t2ipal.diffusion.acceleration import one_at_a_time
from t2ipal.diffusion.config import PRESETS, AccelerationConfig, SynthesisConfig
from t2ipal.diffusion.faster_unet import Int8Linear, Remembered
from t2ipal.diffusion.guidance import interval
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer

COMPOSED = {"composition": 0.5, "class_prompts": ("a dog", "a cat")}
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=WRITERS)
def each(request, tmp_path_factory):
    """The folder of a tiny Stable Diffusion 1, then of a 2 and an XL one."""
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("pipeline"))


def make(folder, acceleration=None, **changes):
    values = {"num_inference_steps": 4, "guidance_scale": 4.0, "precision": "fp32", **changes}
    acceleration = AccelerationConfig(**(acceleration or {}))
    config = SynthesisConfig(pipeline=str(folder), acceleration=acceleration, **values)
    return Synthesizer(config, "cpu")


def batch(count=3):
    return {
        "caption_id": np.array([f"id {i}" for i in range(count)]),
        "caption": np.array([f"a dog and {i} cats" for i in range(count)]),
        "k": np.arange(count),
        "labels": [(0,), (), (0, 1), (1,)][:count],
    }


def difference(ours, theirs):
    return np.abs(ours["image"].astype(int) - theirs["image"])


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


CASES = [
    ({}, 1),
    ({"guidance_until": 0.5}, 2),
    ({"guidance_from": 0.25, "guidance_until": 0.75}, 3),
    (COMPOSED, 1),
]


@pytest.mark.parametrize(("changes", "num_texts"), CASES, ids=["all", "until", "interval", "parts"])
def test_keys_of_the_text_are_computed_once_and_change_nothing(each, changes, num_texts):
    maker = make(each, {"cache_text": True}, **changes)
    layers = [part for part in maker.pipeline.unet.modules() if isinstance(part, Remembered)]
    calls = count_calls(layers[0].linear)
    made = maker(batch())
    assert len(layers) == 8 and len(calls) == num_texts
    assert all(layer.output is None for layer in layers)  # nothing is kept for the next batch
    plain = make(each, **changes)
    np.testing.assert_array_equal(made["image"], plain(batch())["image"])
    other = {**batch(), "caption": np.array(["a bus", "a boat", "a cat"])}
    np.testing.assert_array_equal(maker(other)["image"], plain(other)["image"])


def test_memory_order_and_fused_projections_show_in_last_bits_at_most(each):
    plain = make(each)(batch())
    maker = make(each, {"channels_last": True})
    weight = maker.pipeline.unet.down_blocks[1].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(maker(batch()), plain).max() <= 1
    maker = make(each, {"fuse_qkv": True, "cache_text": True})
    kinds = {type(kind).__name__ for kind in maker.pipeline.unet.attn_processors.values()}
    assert kinds == {"FusedAttnProcessor2_0"}
    assert difference(maker(batch()), plain).max() <= 1


@pytest.mark.parametrize(
    ("changes", "deep"),
    [
        ({"num_inference_steps": 6}, 2),
        ({"num_inference_steps": 6, "guidance_until": 0.5}, 2),
        ({"num_inference_steps": 8, "guidance_until": 0.5}, 4),
        ({"num_inference_steps": 6, **COMPOSED}, 2),
    ],
)
def test_deep_blocks_are_computed_in_each_third_step(each, changes, deep):
    """And where guidance ends, since the batch is another."""
    maker = make(each, {"deep_cache": 3}, **changes)
    unet = maker.pipeline.unet
    middle, inner = (
        count_calls(unet.mid_block.resnets[0]),
        count_calls(unet.up_blocks[0].resnets[0]),
    )
    outer = count_calls(unet.up_blocks[-1].resnets[0])
    made = maker(batch())
    assert len(middle) == len(inner) == deep and len(outer) == changes["num_inference_steps"]
    assert 0 < difference(made, make(each, **changes)(batch())).mean() < 3
    np.testing.assert_array_equal(maker(batch())["image"], made["image"])


def test_deep_cache_on_the_embedded_pipeline():
    """It moves an image, by less than half of what another seed does."""
    settings = {"num_inference_steps": 10, "guidance_until": 0.5, "guidance_scale": 2.0}
    exact = make("pictovoc", **settings)(batch(2))
    apart = difference(exact, make("pictovoc", seed=1, **settings)(batch(2))).mean()
    moved = difference(exact, make("pictovoc", {"deep_cache": 2}, **settings)(batch(2))).mean()
    assert 0 < moved < apart / 2
    same = make("pictovoc", {"deep_cache": 1}, **settings)(batch(2))
    np.testing.assert_array_equal(same["image"], exact["image"])


def test_a_layer_in_8_bits():
    layer = torch.nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-126, 127, (3, 8)) * 0.5)
        layer.weight[:, 0] = 127 * 0.5
    whole = torch.randint(-126, 127, (2, 5, 8)).float()
    whole[..., 3] = -127
    # What 8 bits can say is said exactly: weights in halves, tokens in integers, up to 127 of each.
    torch.testing.assert_close(Int8Linear(layer)(whole), layer(whole), atol=1e-2, rtol=1e-5)
    layer = torch.nn.Linear(256, 64, bias=False)
    tokens = torch.randn(32, 256)
    error = Int8Linear(layer)(tokens) - layer(tokens)
    assert 0 < error.norm() / layer(tokens).norm() < 0.02
    assert Int8Linear(layer)(torch.zeros(2, 256)).abs().max() == 0


def test_images_with_8_bits(each):
    maker = make(each, {"quantize": "int8", "fuse_qkv": True, "cache_text": True})
    parts = list(maker.pipeline.unet.named_modules())
    linear = [n for n, p in parts if "transformer_blocks" in n and isinstance(p, torch.nn.Linear)]
    layers = [part for _, part in parts if isinstance(part, Int8Linear)]
    assert not linear and len(layers) >= 40
    assert {layer.weight.dtype for layer in layers} == {torch.int8}
    assert 0 < difference(maker(batch()), make(each)(batch())).mean() < 1


def test_the_interval_of_guided_steps():
    assert interval(20, 0.0, 1.0) == range(20)
    assert interval(20, 0.0, 0.001) == range(1)
    assert interval(20, 0.2, 0.6) == range(4, 12)
    assert interval(20, 0.99, 1.0) == range(19, 20)


def test_guidance_in_an_interval(each):
    """Before it a run without guidance; in it u + s (c - u), of what a guided run asks for."""

    def trace(**changes):
        maker, steps = make(each, **changes), []
        unet, scheduler = maker.pipeline.unet, maker.pipeline.scheduler
        unet.register_forward_pre_hook(
            lambda module, args, kwargs: steps.append([args[0].clone(), kwargs]), with_kwargs=True
        )
        unet.register_forward_hook(lambda m, args, output: steps[-1].append(output[0].clone()))
        step = scheduler.step
        scheduler.step = lambda output, *a, **k: (steps[-1].append(output), step(output, *a, **k))[
            1
        ]
        made = maker(batch())
        return steps, made

    part, made = trace(guidance_from=0.25, guidance_until=0.75)
    assert [len(step[0]) for step in part] == [3, 6, 6, 3]
    plain, _ = trace(guidance_scale=1.0)
    whole, _ = trace()
    torch.testing.assert_close(part[0][0], plain[0][0], rtol=0, atol=0)
    assert torch.equal(part[1][0], torch.cat([plain[1][0]] * 2))
    for guided in (1, 2):
        ours, theirs = part[guided][1], whole[guided][1]
        assert torch.equal(ours["encoder_hidden_states"], theirs["encoder_hidden_states"])
        if ours.get("added_cond_kwargs"):
            for name, tensor in ours["added_cond_kwargs"].items():
                assert torch.equal(tensor, theirs["added_cond_kwargs"][name])
        u, c = part[guided][2].chunk(2)
        assert torch.equal(part[guided][3], u + 4.0 * (c - u)) and not torch.equal(u, c)
    for alone in (0, 3):
        assert torch.equal(part[alone][3], part[alone][2])
    assert torch.equal(part[3][1]["encoder_hidden_states"], plain[3][1]["encoder_hidden_states"])
    again, _ = trace(guidance_from=0.25, guidance_until=0.75)
    assert torch.equal(again[3][3], part[3][3]) and made["status"].tolist() == ["ok"] * 3


def test_compiled_for_whole_batches_and_filled_up(folder, monkeypatch):
    """Each block once for each width, though some layers remember and others are integers."""
    from diffusers import UNet2DConditionModel

    shapes, compiled = [], UNet2DConditionModel.compile_repeated_blocks

    def backend(graph, inputs):
        shapes.append(max(len(tensor) for tensor in inputs if tensor.ndim == 3))
        return graph.forward

    monkeypatch.setattr(
        UNet2DConditionModel,
        "compile_repeated_blocks",
        lambda unet, **options: compiled(unet, backend=backend, **options),
    )
    torch._dynamo.reset()
    changes = {"guidance_until": 0.5, "batch_size": 4}
    faster = {"cache_text": True, "quantize": "int8"}
    maker = make(folder, {"compile": True, **faster}, **changes)
    assert sorted(shapes) == [4, 8]  # before the first image is asked for
    made, short = maker(batch(4)), maker(batch(3))
    assert sorted(shapes) == [4, 8]
    assert short["image"].shape == (3, 32, 32, 3) and len(short["status"]) == 3
    np.testing.assert_array_equal(short["image"], made["image"][:3])
    plain = make(folder, faster, **changes)(batch(3))
    assert difference(short, plain).max() <= 1 and difference(short, plain).mean() < 0.002
    torch._dynamo.reset()


def test_workers_of_a_machine_compile_one_after_the_other(folder, tmp_path, monkeypatch):
    """Of the same settings; a worker that compiles nothing waits for nobody."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pipeline = make(folder).pipeline  # loaded once: loading is not for several threads
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.load_pipeline", lambda *settings: pipeline)
    monkeypatch.setattr(
        "t2ipal.diffusion.synthesizer.accelerate", lambda pipeline, config: lambda: None
    )
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    def warm_up(maker):
        entered.release()
        assert leave.acquire(timeout=60)

    monkeypatch.setattr(Synthesizer, "_warm_up", warm_up)
    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(make, folder, {"compile": True}) for _ in range(2)]
        assert entered.acquire(timeout=60)
        make(folder, {})
        assert not entered.acquire(timeout=1)
        other = pool.submit(make, folder, {"compile": True}, seed=1)
        assert entered.acquire(timeout=60)
        leave.release(2)
        assert entered.acquire(timeout=60)
        leave.release()
        for worker in (*workers, other):
            worker.result(60)


def test_a_forked_process_does_not_keep_the_turn(tmp_path, monkeypatch):
    """Neither one that lives on, nor one that ends while its parent compiles."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, sys\n"
        "from t2ipal.diffusion.acceleration import one_at_a_time\n"
        "with one_at_a_time('test'):\n"
        "    if os.fork() == 0:\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    if os.fork() == 0:\n"
        "        sys.stdin.read()\n"  # until the test ends
        "        os._exit(0)\n"
        "    print('held', flush=True)\n"
        "    os.read(int(sys.argv[1]), 1)\n"
        "print('left', flush=True)\n"
    )
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(reader)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[reader],
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            one_at_a_time("test").acquire(timeout=0.2)
        os.write(writer, b".")
        assert process.stdout.readline() == "left\n"
        with one_at_a_time("test").acquire(timeout=5):
            pass
        process.stdin.close()
    for end in (reader, writer):
        os.close(end)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_from": -0.1}, r"guidance_from must be >= 0 and < guidance_until \(1.0\), got"),
        ({"guidance_from": 0.5, "guidance_until": 0.5}, r"< guidance_until \(0.5\), got 0.5"),
        ({"timestep_spacing": "traling"}, "'traling'. Did you mean 'trailing'"),
        ({"unet_weights": ""}, "unet_weights must name a file or be None, got ''"),
        ({**PRESETS["sd-turbo"], "guidance_scale": 2.0}, "<= 1 with stabilityai/sd-turbo, got 2.0"),
        ({"pipeline": "stabilityai/sdxl-turbo"}, "got 20. Take --preset sdxl-turbo"),
        ({**PRESETS["sdxl-lightning"], "guidance_scale": 5.0}, "unet.safetensors, got 5.0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        SynthesisConfig(**changes)


def test_options_are_checked():
    with pytest.raises(ValueError, match="deep_cache must be > 0, got 0"):
        AccelerationConfig(deep_cache=0)
    with pytest.raises(ValueError, match=r"Unknown quantize 'int4'\. Did you mean 'int8'"):
        AccelerationConfig(quantize="int4")
    compiled = AccelerationConfig(compile=True)
    assert "decode_bf16" not in to_dict(compiled)  # as runs from before it was there say nothing
    with pytest.raises(ValueError, match="compile needs batches of one width, which composition"):
        SynthesisConfig(composition=1.0, acceleration=compiled)
    for preset in PRESETS.values():
        assert dataclasses.asdict(SynthesisConfig(**preset)).items() >= preset.items()


def test_weights_of_another_unet(folder, tmp_path):
    tensors = {name: 0.5 * tensor for name, tensor in load_file(folder / UNET).items()}
    save_file(tensors, tmp_path / "other.safetensors")
    maker = make(folder, unet_weights=str(tmp_path / "other.safetensors"))
    for name, tensor in maker.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    tensors.pop("conv_in.bias")
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match=r"do not fit: .*Missing key.*conv_in\.bias"):
        make(folder, unet_weights=str(tmp_path / "short.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"unet_weights must be a file .*\./none"):
        make(folder, unet_weights="./none.safetensors")


def test_a_model_that_guides_itself(folder, tmp_path):
    """A latent consistency model: no second half of the batch, and the scale is an input."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel

    parts = load_pipeline(SynthesisConfig(pipeline=str(folder)), torch.float32).components
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**parts["unet"].config, "time_cond_proj_dim": 8})
    parts = {name: part for name, part in parts.items() if name != "image_encoder"}
    parts |= {"unet": unet, "scheduler": LCMScheduler()}
    LatentConsistencyModelPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path)
    own = {"scheduler": "default", "num_inference_steps": 2}
    maker, widths = make(tmp_path, {"cache_text": True}, **own), []
    maker.pipeline.unet.register_forward_pre_hook(lambda _, args: widths.append(len(args[0])))
    made = maker(batch())
    assert widths == [3, 3] and made["status"].tolist() == ["ok"] * 3
    other = make(tmp_path, **own, guidance_scale=8.0)(batch())
    assert not np.array_equal(other["image"], made["image"])
    with pytest.raises(ValueError, match="guides itself: leave out guidance_from"):
        make(tmp_path, **own, guidance_until=0.5)
    with pytest.raises(ValueError, match="timestep_spacing must be default with LCMScheduler"):
        make(tmp_path, **own, timestep_spacing="trailing")


def test_spacing_of_the_steps(folder):
    maker = make(folder, scheduler="euler", timestep_spacing="trailing")
    assert maker(batch())["status"].tolist() == ["ok"] * 3
    assert maker.pipeline.scheduler.timesteps.tolist() == [999, 749, 499, 249]
