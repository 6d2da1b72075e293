import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_clip import write_tiny_clip

from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pretraining import decoder
from t2ipal.pretraining.autoencoder import (
    CLASS_CHANNELS,
    CODE_SIZE,
    LATENT_CHANNELS,
    LATENT_SIDE,
    LOOK_CHANNELS,
    POSITION_SIZE,
    class_codes,
    draw_scenes,
    known_latents,
    reconstruction_loss,
    scene_pixels,
    scene_plan,
)
from t2ipal.pretraining.decoder import (
    BATCH,
    NOISE_LEVELS,
    DecoderConfig,
    agreement,
    deepen,
    faithful_loss,
    planned,
    redraw,
    train_decoder,
)
from t2ipal.pretraining.loop import PretrainConfig
from t2ipal.pretraining.segmenter import (
    KINDS,
    OBJECT_WEIGHT,
    Segmenter,
    SegmenterConfig,
    class_shares,
    reading_loss,
    seen_worse,
    train_segmenter,
)

FEW = SegmenterConfig(PretrainConfig(2, 4))


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(SynthesisConfig(scheduler="ddim"), torch.float32)


def test_the_segmenter_learns_to_read_scenes(tmp_path):
    config = SegmenterConfig(PretrainConfig(15, 8, learning_rate=4e-3, warmup_steps=2))
    segmenter, result = train_segmenter(config, tmp_path)
    assert not segmenter.training and not any(p.requires_grad for p in segmenter.parameters())
    assert math.isfinite(result["loss"]) and 0 <= result["objects_read"] <= 1
    scenes = draw_scenes("test", 0, 8)
    pixels, shares = scene_pixels(scenes), class_shares(scenes)
    torch.manual_seed(config.optim.seed)
    # By the statistics of this batch: those of so short a training have not settled.
    before, after = (
        reading_loss(model.train()(pixels), shares) for model in (Segmenter(), segmenter)
    )
    assert after < 0.9 * before


def test_shares_of_a_cell():
    scenes = draw_scenes("test", 0, 3)
    shares = class_shares(scenes)
    assert shares.shape == (3, KINDS, 16, 16)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3, 16, 16))
    for scene, of_scene in zip(scenes, shares, strict=True):
        cell = scene.class_map[20:24, 32:36]
        for kind in range(KINDS):
            assert float(of_scene[kind, 5, 8]) == pytest.approx(float((cell == kind).mean()))


def test_reading_loss():
    logits = torch.randn(2, KINDS, 3, 3, generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([[0, 1, 2], [0, 0, 20], [5, 0, 0]]).expand(2, 3, 3)
    shares = torch.nn.functional.one_hot(kinds, KINDS).permute(0, 3, 1, 2).float()
    each = torch.nn.functional.cross_entropy(logits, kinds, reduction="none")
    weights = torch.where(kinds == 0, 1.0, OBJECT_WEIGHT)
    assert float(reading_loss(logits, shares)) == pytest.approx(float((weights * each).mean()))


def test_pictures_are_seen_worse_now_and_then():
    pixels = scene_pixels(draw_scenes("test", 0, 2))
    seen = [seen_worse(pixels, torch.Generator().manual_seed(seed)) for seed in range(20)]
    changes = [float((other - pixels).abs().mean()) for other in seen]
    assert 4 <= sum(change == 0 for change in changes) <= 12
    assert max(changes) < 0.2 and all(other.shape == pixels.shape for other in seen)


def test_the_plan_is_the_nearest_code(pipeline):
    scenes = draw_scenes("test", 0, 6)
    latents, shares = known_latents(pipeline.vae, scenes), class_shares(scenes)
    plan = planned(latents)
    assert plan.shape == shares.shape and torch.equal(plan.sum(dim=1), torch.ones(6, 16, 16))
    whole = shares.max(dim=1).values == 1
    assert torch.equal(plan.argmax(dim=1)[whole], shares.argmax(dim=1)[whole])
    assert class_codes().shape == (1 + len(CLASS_NAMES), CLASS_CHANNELS)


def test_plans_agree_as_far_as_they_show_the_same_part_of_the_same_drawing(pipeline):
    scenes = draw_scenes("test", 0, 6)
    plan = scene_plan(scenes)
    latents = known_latents(pipeline.vae, scenes)
    assert (agreement(latents, plan) == 1).all()
    object_cells = plan[:, :CLASS_CHANNELS].abs().amin(dim=1, keepdim=True) == CODE_SIZE

    def changed(channels, change):
        other = latents.clone()
        other[:, channels] = change(other[:, channels])
        return agreement(other, plan)[object_cells]

    drawing = LOOK_CHANNELS + CLASS_CHANNELS
    assert (changed(slice(0, LOOK_CHANNELS), lambda look: look + 5) == 1).all()
    assert changed(slice(LOOK_CHANNELS, drawing), lambda code: -code).max() < 1e-6
    assert changed(slice(drawing, drawing + 1), lambda sign: -sign).median() < 0.2
    shifted = changed(slice(drawing + 2, drawing + 3), lambda x: x + POSITION_SIZE / 2)
    assert 0.6 < shifted.median() < 0.8


def test_faithful_loss_is_the_reconstruction_loss_where_the_plan_is_the_scenes():
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.randn(2, 3, 64, 64, generator=generator) for _ in range(2))
    agreed = torch.ones(2, 1, 16, 16)
    kept = faithful_loss(output, target, agreed, 1.0)
    assert float(kept) == pytest.approx(float(reconstruction_loss(output, target, 1.0)), rel=1e-5)
    lost = faithful_loss(output, target, 0 * agreed, 1.0)
    assert float(lost) == pytest.approx(0.05 * float(kept), rel=1e-5)
    half = agreed.clone()
    half[:, :, 8:] = 0
    error = torch.zeros_like(output)
    error[:, :, 40:] = 1  # wrong only where another thing was made up, away from the border
    assert float(faithful_loss(error, 0 * error, half, 0.0)) < 0.05


@pytest.mark.parametrize("more", [0, 2])
def test_a_deeper_decoder_draws_the_same_until_it_learns(more):
    vae = load_pipeline(SynthesisConfig(), torch.float32).vae
    before = list(vae.config.num_decoder_blocks)
    latents = known_latents(vae, draw_scenes("test", 0, 2))
    with torch.no_grad():
        picture = vae.decode(latents).sample
        deepen(vae, before[0] + more)
        assert torch.equal(vae.decode(latents).sample, picture)
    assert list(vae.config.num_decoder_blocks) == [before[0] + more, *before[1:]]
    assert len(vae.decoder.layers) == 2 + sum(before) + more + 2 * (len(before) - 1) + 1
    deepen(vae, 1)  # no fewer than there are
    assert vae.config.num_decoder_blocks[0] == before[0] + more


def test_redrawn_latents_keep_the_plan_and_change_the_look(pipeline):
    """The more noise, the less is kept; each way of guidance and noise comes from the generator."""
    scenes = draw_scenes("train", 30_000_000, 4)
    latents = known_latents(pipeline.vae, scenes)
    captions = ["a dog on the grass"] * 4
    with torch.inference_mode():
        first, again, other = (
            redraw(pipeline, latents, captions, torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == latents.shape
    agree = (planned(first) * planned(latents)).sum(dim=1).mean()
    assert agree > 0.6
    look = slice(0, LOOK_CHANNELS)
    assert float((first - latents)[:, look].square().mean()) > 0.1


def test_redrawing_undoes_noise_that_a_perfect_unet_knows(pipeline, monkeypatch):
    """With the true velocity in place of the UNet's, DDIM leads back to where it came from."""
    latents = torch.randn(3, 12, 16, 16, generator=torch.Generator().manual_seed(1))
    scale, alphas = pipeline.vae.config.scaling_factor, pipeline.scheduler.alphas_cumprod
    seen = []

    def velocity(noisy, time, hidden):
        seen.append((time, len(noisy), len(hidden)))
        alpha, sigma = alphas[time] ** 0.5, (1 - alphas[time]) ** 0.5
        clean = scale * latents.repeat(len(noisy) // 3, 1, 1, 1)
        noise = (noisy - alpha * clean) / sigma
        return type("Output", (), {"sample": alpha * noise - sigma * clean})

    monkeypatch.setattr(pipeline.unet, "forward", velocity)
    drawn = redraw(pipeline, latents, ["a", "b", "c"], torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, latents, rtol=1e-3, atol=1e-3)
    times = [time for time, _, _ in seen]
    assert NOISE_LEVELS[0] <= times[0] < NOISE_LEVELS[1] and times == sorted(times)[::-1]
    assert all(noisy == hidden for _, noisy, hidden in seen)


def test_tuning_changes_the_decoder_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "BATCH", 4)
    backbone = load_backbone(BackboneConfig(model=str(write_tiny_clip(tmp_path / "clip"))))
    folder = shutil.copytree(WEIGHTS_DIR / "stable-diffusion", tmp_path / "stable-diffusion")
    name = "vae/diffusion_pytorch_model.safetensors"
    before, unet = load_file(folder / name), (folder / "unet" / name[4:]).read_bytes()
    config = DecoderConfig(PretrainConfig(2, 4), num_scenes=8, segmenter=FEW)
    result = train_decoder(config, backbone, tmp_path / "work", folder)
    assert all(math.isfinite(result[term]) for term in ("picture", "perceptual", "misread"))
    after = load_file(folder / name)
    assert (folder / "unet" / name[4:]).read_bytes() == unet
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert "decoder.layers.0.weight" in changed
    assert all(key.startswith("decoder.") for key in changed)
    image = load_pipeline(SynthesisConfig(str(folder)), torch.float32).vae.decode(
        torch.zeros(1, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)
    )
    assert np.isfinite(image.sample.detach().numpy()).all()
    # The scenes were redrawn by another UNet.
    other = dataclasses.replace(config, optim=PretrainConfig(3, 4))
    weights = folder / "unet" / name[4:]
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"made with models, scene_offset as now"):
        train_decoder(other, backbone, tmp_path / "work", folder)


def test_scenes_come_in_whole_batches():
    with pytest.raises(ValueError, match=f"num_scenes must be a multiple of {BATCH}, got 75"):
        DecoderConfig(num_scenes=75)
    with pytest.raises(ValueError, match=f"num_scenes must be >= 64, a batch, got {BATCH}"):
        DecoderConfig(PretrainConfig(2, 64), num_scenes=BATCH)
