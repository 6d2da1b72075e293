import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_stable_diffusion import (
    TOKENS,
    WRITERS,
    write_tiny_stable_diffusion,
    write_tiny_stable_diffusion_2,
    write_tiny_stable_diffusion_xl,
)

from t2ipal.diffusion.config import SCHEDULERS, SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer, sample_seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def copy(folder, tmp_path):
    """The pipeline's folder, to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def config(folder, **changes):
    values = {"pipeline": str(folder), "num_inference_steps": 2, "precision": "fp32", **changes}
    return SynthesisConfig(**values)


@pytest.fixture(scope="module")
def synthesizer(folder):
    return Synthesizer(config(folder), device="cpu")


def batch(count=4):
    return {
        "caption_id": np.array([f"id {i // 2}" for i in range(count)]),
        "caption": np.array([f"a dog and {i // 2} cats" for i in range(count)]),
        "k": np.arange(count) % 2,
    }


def rows(values, index):
    return {name: column[index] for name, column in values.items()}


def assert_same_but_for_rounding(ours, theirs):
    """Another batch size may take another kernel, and a number at .5 round to the other side."""
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1 and difference.mean() < 0.002


def test_images_do_not_depend_on_the_batch_they_are_made_in(synthesizer):
    together = synthesizer(batch(4))
    assert together["image"].shape == (4, 32, 32, 3) and together["image"].dtype == np.uint8
    assert together["seed"].dtype == np.uint64
    assert together["status"].tolist() == ["ok"] * 4 and together["reason"].tolist() == [""] * 4
    assert together["caption"].tolist() == batch(4)["caption"].tolist()
    assert len({image.tobytes() for image in together["image"]}) == 4
    for index in range(4):
        alone = synthesizer(rows(batch(4), [index]))
        assert_same_but_for_rounding(alone["image"][0], together["image"][index])
        assert alone["seed"][0] == together["seed"][index]
    order = [2, 0, 3, 1]
    shuffled = synthesizer(rows(batch(4), order))
    assert_same_but_for_rounding(shuffled["image"], together["image"][order])
    again = synthesizer(batch(4))
    np.testing.assert_array_equal(again["image"], together["image"])


def test_seeds():
    assert sample_seed(0, "a", 0) == sample_seed(0, "a", 0)
    seeds = [sample_seed(s, i, k) for s in (0, 1) for i in ("a", "b", "a\n1") for k in (0, 1)]
    assert len(set(seeds)) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)  # what torch and parquet both hold
    # What runs were made with before there were attempts.
    assert sample_seed(0, "a", 0) == sample_seed(0, "a", 0, 0) == 6152854164166434909
    later = [sample_seed(0, i, k, t) for i in ("a", "a\n1") for k in (0, 1) for t in (1, 2)]
    assert len({*seeds, *later}) == 20


def test_another_attempt_has_other_noise(synthesizer, folder):
    plain, attempts = synthesizer(batch(3)), np.array([0, 1, 2])
    again = synthesizer({**batch(3), "attempt": attempts})
    seeds = [sample_seed(0, i, k, a) for i, k, a in zip(plain["caption_id"], plain["k"], attempts)]
    assert again["seed"].tolist() == seeds
    np.testing.assert_array_equal(again["image"][0], plain["image"][0])
    assert all(not np.array_equal(again["image"][n], plain["image"][n]) for n in (1, 2))


def test_settings_reach_the_image(synthesizer, folder):
    plain = synthesizer(batch(2))["image"]
    changes = (
        {"seed": 1},
        {"guidance_scale": 7.0},
        {"num_inference_steps": 3},
        {"scheduler": "euler"},
        {"negative_prompt": "a boat"},
        {"guidance_scale": 7.0, "guidance_until": 0.5},
        {"precision": "bf16"},
    )
    for change in changes:
        other = Synthesizer(config(folder, **change), device="cpu")(batch(2))["image"]
        assert not np.array_equal(other, plain), change
    larger = Synthesizer(config(folder, image_size_px=48), device="cpu")(batch(1))
    assert larger["image"].shape == (1, 48, 48, 3)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_guidance_ends_where_it_is_told(write, tmp_path):
    """The steps up to there are those of a guided run; after it the UNet sees half the batch."""

    def trace(**changes):
        maker = Synthesizer(config(write(tmp_path), num_inference_steps=4, **changes), "cpu")
        seen = []
        maker.pipeline.unet.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(args[0].clone()), with_kwargs=True
        )
        assert maker(batch(3))["status"].tolist() == ["ok"] * 3
        return seen

    whole, half = trace(guidance_scale=5.0), trace(guidance_scale=5.0, guidance_until=0.5)
    assert [len(latents) for latents in whole] == [6, 6, 6, 6]
    assert [len(latents) for latents in half] == [6, 6, 3, 3]
    for guided, ended in zip(whole[:2], half[:2]):
        assert torch.equal(guided, ended)
    # The third step starts where the guided run's third starts.
    assert torch.equal(whole[2][3:], half[2])
    assert len(trace(guidance_scale=1.0, guidance_until=0.5)[0]) == 3


def unet_calls(maker):
    """Inputs and outputs of the UNet as the pipeline sees them, in order."""
    calls = []
    maker.pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append([args[0], kwargs["encoder_hidden_states"]]),
        with_kwargs=True,
    )
    maker.pipeline.unet.register_forward_hook(lambda m, args, output: calls[-1].append(output[0]))
    return calls


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_classes_guide_beside_the_caption(write, tmp_path):
    """The pipeline's prediction is c + w sum (c_i - u), from the UNet's own on wider batches."""
    prompts = ("a photo of a dog.", "a photo of a cat.", "a photo of a car.")
    changes = {"guidance_scale": 4.0, "composition": 0.5, "class_prompts": prompts}
    maker = Synthesizer(config(write(tmp_path), **changes), "cpu")
    calls = unet_calls(maker)  # after the conjunction's own hooks: wide inputs, narrow outputs
    labels = [(0, 2), (), (1,)]
    made = maker({**batch(3), "labels": labels})
    assert made["status"].tolist() == ["ok"] * 3
    assert [len(call[0]) for call in calls] == [9, 9]
    sample, states, seen = calls[0]
    assert torch.equal(sample[6:], sample[torch.tensor([0, 0, 2])])
    embeddings = maker.pipeline.encode_prompt(
        prompt=list(prompts), device="cpu", num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )[0]  # fmt: skip
    torch.testing.assert_close(states[6:], embeddings[torch.tensor([0, 2, 1])])

    plain = Synthesizer(config(write(tmp_path), guidance_scale=4.0), "cpu")
    extra = {}
    if "xl" in write.__name__:
        pooled = maker._classes[1][torch.tensor([0, 2, 1])]
        empty, caption = maker._unguided["negative_pooled_prompt_embeds"], None
        caption = plain._conditions(batch(3)["caption"].tolist(), [])["pooled_prompt_embeds"]
        texts = torch.cat([empty.expand(3, -1), caption, pooled])
        size = plain.pipeline.default_sample_size * plain.pipeline.vae_scale_factor
        times = torch.tensor([[size, size, 0, 0, size, size]] * 9, dtype=torch.float32)
        extra = {"added_cond_kwargs": {"text_embeds": texts, "time_ids": times}}
    first = maker.pipeline.scheduler.timesteps[0]
    with torch.inference_mode():
        own = plain.pipeline.unet(sample, first, encoder_hidden_states=states, **extra).sample
    u, c, p = own.split(3)
    expected = torch.stack(
        [c[0] + 0.5 * (p[0] + p[1] - 2 * u[0]), c[1], c[2] + 0.5 * (p[2] - u[2])]
    )
    torch.testing.assert_close(seen, torch.cat([u, expected]), atol=1e-5, rtol=1e-4)


def test_composition_ends_with_guidance(folder):
    changes = {"guidance_scale": 4.0, "composition": 1.0, "class_prompts": ("a dog", "a cat")}
    maker = Synthesizer(config(folder, **changes, guidance_until=0.5, num_inference_steps=4), "cpu")
    calls = unet_calls(maker)
    maker({**batch(2), "labels": [(0,), (1,)]})
    assert [len(call[0]) for call in calls] == [6, 6, 2, 2]
    nothing = {**batch(2), "labels": [(), ()]}
    plain = Synthesizer(
        config(folder, guidance_scale=4.0, guidance_until=0.5, num_inference_steps=4), "cpu"
    )
    np.testing.assert_array_equal(maker(nothing)["image"], plain(batch(2))["image"])


def test_half_precision_on_a_cpu_stays_close(synthesizer, folder):
    exact = synthesizer(batch(4))["image"].astype(int)
    half = Synthesizer(config(folder, precision="bf16"), device="cpu")(batch(4))["image"]
    assert np.abs(half.astype(int) - exact).mean() < 8


def test_failed_images_say_why(folder, monkeypatch):
    class Output:
        images = torch.full((4, 3, 8, 8), 0.5)
        nsfw_content_detected = (False, False, False, True)

    Output.images[0, 0, 0, 0] = torch.nan
    Output.images[1] = 0.001
    maker = Synthesizer(config(folder), device="cpu")
    monkeypatch.setattr(type(maker.pipeline), "__call__", lambda *words, **settings: Output)
    made = maker(batch(4))
    assert made["status"].tolist() == ["failed", "failed", "ok", "failed"]
    reasons = ["not finite", "black", "", "flagged by the safety checker"]
    assert made["reason"].tolist() == reasons
    assert made["image"].dtype == np.uint8 and made["image"][2].flat[0] == 128


def test_short_memory_halves_the_batch(folder, monkeypatch):
    maker = Synthesizer(config(folder), device="cpu")
    whole, sizes = maker(batch(5)), []
    draw = type(maker.pipeline).__call__

    def small(pipeline, *args, **settings):
        sizes.append(len(settings["prompt_embeds"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no room")
        return draw(pipeline, *args, **settings)

    monkeypatch.setattr(type(maker.pipeline), "__call__", small)
    halves = maker(batch(5))
    assert sizes == [5, 2, 3, 1, 2]
    again = maker(batch(5))  # in the same parts, without trying what has failed
    assert sizes[5:] == [2, 1, 2]
    np.testing.assert_array_equal(again["image"], halves["image"])
    assert halves["seed"].tolist() == whole["seed"].tolist()
    assert_same_but_for_rounding(halves["image"], whole["image"])
    monkeypatch.setattr(type(maker.pipeline), "__call__", no_room)
    with pytest.raises(torch.OutOfMemoryError, match="not even one"):
        maker(batch(2))


def no_room(*args, **settings):
    raise torch.OutOfMemoryError("not even one")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_captions_are_encoded_once(write, tmp_path):
    """What comes out is what the pipeline makes of the captions themselves."""
    settings = config(write(tmp_path), guidance_scale=5.0, negative_prompt="a boat")
    maker, encoded = Synthesizer(settings, "cpu"), []
    maker.pipeline.text_encoder.register_forward_pre_hook(
        lambda module, args: encoded.append(len(args[0]))
    )
    made = maker(batch(4))
    assert maker(batch(4))["image"].tobytes() == made["image"].tobytes()
    # Four images of two captions; before them, the empty caption and the negative prompt.
    assert encoded == [1, 1, 2, 2]
    generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in made["seed"]]
    plain = maker.pipeline(
        batch(4)["caption"].tolist(), negative_prompt=["a boat"] * 4, guidance_scale=5.0,
        num_inference_steps=2, generator=generators, output_type="np",
    ).images  # fmt: skip
    assert_same_but_for_rounding(made["image"], (plain * 255).round().astype(int))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_per_caption": 0}, "images_per_caption must be > 0, got 0"),
        ({"composition": -1.0}, "composition must be >= 0, got -1"),
        ({"composition": 1.0, "guidance_scale": 1.0}, "guidance_scale must be > 1, got 1.0"),
        ({"guidance_until": 0.0}, "guidance_until must be > 0 and <= 1, got 0.0"),
        ({"num_inference_steps": -1}, "num_inference_steps must be > 0, got -1"),
        ({"batch_size": 0}, "batch_size must be > 0, got 0"),
        ({"guidance_scale": -0.5}, r"guidance_scale must be >= 0, got -0\.5"),
        ({"jpeg_quality": 101}, r"jpeg_quality must be in 1\.\.100, got 101"),
        ({"image_format": "jpg"}, "Unknown image format 'jpg'. Did you mean 'jpeg'"),
        ({"jpeg_subsampling": "420"}, "Unknown jpeg subsampling '420'. Did you mean '4:2:0'"),
        (
            {"image_format": "webp", "jpeg_subsampling": "4:4:4"},
            "jpeg_subsampling needs image_format jpeg, got webp",
        ),
        ({"image_size_px": 60}, "image_size_px must be a positive multiple of 8, got 60"),
        ({"scheduler": "dmp++"}, r"Unknown scheduler 'dmp\+\+'\. Did you mean 'dpm\+\+'"),
        ({"precision": "fp8"}, "Unknown precision 'fp8'"),
        ({"pipeline": ""}, "pipeline must name a model or a folder, got ''"),
    ],
)
def test_config_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        SynthesisConfig(**changes)


@pytest.fixture(scope="module")
def version_2(tmp_path_factory):
    return write_tiny_stable_diffusion_2(tmp_path_factory.mktemp("version 2"))


def test_stable_diffusion_2(version_2):
    """Its text encoder gives the last layer's normalized states, of captions padded by "!"."""
    maker = Synthesizer(config(version_2, scheduler="default"), device="cpu")
    unet, encoder = maker.pipeline.unet, maker.pipeline.text_encoder
    assert unet.config.cross_attention_dim == encoder.config.hidden_size == 12
    first, deep = unet.down_blocks[0].attentions[0], unet.mid_block.attentions[0]
    heads = [part.transformer_blocks[0].attn2.heads for part in (first, deep)]
    assert heads == [1, 2] and isinstance(first.proj_in, torch.nn.Linear)
    one = encoder.encoder.layers[0].mlp.activation_fn(torch.tensor(1.0))
    assert one.item() == pytest.approx(0.8413, abs=1e-4)  # the exact one; CLIP's own gives 0.8458
    tokens = maker.pipeline.tokenizer("a dog", padding="max_length").input_ids
    end = len(TOKENS) - 1
    assert len(tokens) == 77 and tokens[5:] == [end] + [0] * 71
    states = maker._conditions(["a dog"], [])["prompt_embeds"]
    with torch.inference_mode():
        torch.testing.assert_close(states, encoder(torch.tensor([tokens])).last_hidden_state)
    made = maker(batch(4))
    assert made["image"].shape == (4, 32, 32, 3) and made["status"].tolist() == ["ok"] * 4


def test_weights_under_the_names_that_the_hub_has(version_2, tmp_path):
    """Its files are of older versions of transformers."""
    folder = shutil.copytree(version_2, tmp_path / "copy")
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(folder / TEXT).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, folder / TEXT, metadata={"format": "pt"})
    made, again = (Synthesizer(config(each), "cpu")(batch(2)) for each in (version_2, folder))
    np.testing.assert_array_equal(again["image"], made["image"])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_model_that_predicts_velocity_keeps_doing_so(version_2, scheduler):
    maker = Synthesizer(config(version_2, scheduler=scheduler), device="cpu")
    name = SCHEDULERS[scheduler] or "DDIMScheduler"
    assert type(maker.pipeline.scheduler).__name__ == name
    assert maker.pipeline.scheduler.config.prediction_type == "v_prediction"
    made = maker(batch(1))
    assert made["status"].tolist() == ["ok"]
    kind, values = type(maker.pipeline.scheduler), maker.pipeline.scheduler.config
    maker.pipeline.scheduler = kind.from_config(values, prediction_type="epsilon")
    assert np.abs(maker(batch(1))["image"].astype(int) - made["image"]).mean() > 5


def test_a_step_along_the_velocity(version_2):
    """DDIM in its own words, of x = a image + s noise and v = a noise - s image."""
    maker = Synthesizer(config(version_2, scheduler="ddim", guidance_scale=1.0), device="cpu")
    calls = unet_calls(maker)
    maker(batch(2))
    (sample, _, velocity), (later, _, _) = calls
    scheduler = maker.pipeline.scheduler
    now, then = scheduler.alphas_cumprod[scheduler.timesteps]
    image = now.sqrt() * sample - (1 - now).sqrt() * velocity
    noise = now.sqrt() * velocity + (1 - now).sqrt() * sample
    torch.testing.assert_close(later, then.sqrt() * image + (1 - then).sqrt() * noise)


def test_stable_diffusion_xl(tmp_path):
    folder = write_tiny_stable_diffusion_xl(tmp_path)
    made = Synthesizer(config(folder), device="cpu")(batch(2))
    assert made["image"].shape == (2, 32, 32, 3)
    assert made["status"].tolist() == ["ok", "ok"]


def test_an_autoencoder_that_overflows_in_half_precision(copy):
    """Its images have failed, and are never black ones; in single precision it draws them."""
    path = copy / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.weight"] *= 1e6
    save_file(tensors, path, metadata={"format": "pt"})
    made = Synthesizer(config(copy, precision="fp16"), "cpu")(batch(2))
    assert made["status"].tolist() == ["failed"] * 2
    assert made["reason"].tolist() == ["not finite"] * 2
    assert Synthesizer(config(copy), "cpu")(batch(2))["status"].tolist() == ["ok"] * 2


def test_the_xl_pipeline_decodes_in_single_precision(tmp_path):
    """diffusers does so where the autoencoder's configuration asks for it; that of XL overflows."""
    pipeline, seen = (
        load_pipeline(config(write_tiny_stable_diffusion_xl(tmp_path)), torch.float16),
        [],
    )
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    images = pipeline("a dog", num_inference_steps=1, output_type="pt").images
    assert pipeline.vae.config.force_upcast and seen == [torch.float32]
    assert pipeline.vae.dtype == torch.float16 and images.isfinite().all()


UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.mark.parametrize(
    "missing", ["model_index.json", "unet/config.json", UNET, TEXT, "tokenizer", "vae"]
)
def test_missing_files(copy, missing):
    path = copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=str(copy)):
        load_pipeline(config(copy), torch.float32)


@pytest.mark.parametrize("weights", [UNET, TEXT])
def test_damaged_weights(copy, weights):
    data = (copy / weights).read_bytes()
    (copy / weights).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="do not fit: "):
        load_pipeline(config(copy), torch.float32)


def test_pickles_are_never_opened(copy):
    """Neither under their own name nor under that of safetensors."""
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no file named diffusion_pytorch_model\.safetensors"
    ):
        load_pipeline(config(copy), torch.float32)
    path.with_suffix(".bin").rename(path)
    with pytest.raises(ValueError, match="do not fit"):
        load_pipeline(config(copy), torch.float32)


def test_a_pipeline_that_reads_no_captions(copy):
    parts = {"unet": "UNet2DConditionModel", "scheduler": "DDIMScheduler"}
    index = {"_class_name": "DDPMPipeline"} | {n: ["diffusers", k] for n, k in parts.items()}
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"that reads captions, got a DDPMPipeline"):
        load_pipeline(config(copy), torch.float32)


@pytest.mark.parametrize(
    ("part", "change"),
    [("unet", {"cross_attention_dim": 16}), ("text_encoder", {"intermediate_size": 16})],
)
def test_weights_of_another_shape(copy, part, change):
    path = copy / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match="do not fit: "):
        load_pipeline(config(copy), torch.float32)


@pytest.mark.parametrize("weights", [UNET, TEXT])
def test_weights_are_never_made_up(copy, weights):
    tensors = load_file(copy / weights)
    tensors.pop(max(tensors))
    save_file(tensors, copy / weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must be complete: .*newly initialized"):
        load_pipeline(config(copy), torch.float32)


def test_no_such_folder():
    with pytest.raises(FileNotFoundError, match=r"must hold model_index\.json; nowhere does not"):
        load_pipeline(config("./nowhere"), torch.float32)


def test_config_pickles_and_compares(folder):
    import pickle

    one = config(folder)
    assert pickle.loads(pickle.dumps(one)) == one
    assert dataclasses.replace(one, seed=1) != one
