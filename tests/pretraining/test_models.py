import json
import math

import numpy as np
import pytest
import torch
from tiny_clip import write_tiny_clip

from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.synthesizer import Synthesizer
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.towers import text_positions
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.judge import load_judge
from t2ipal.pictovoc.pixels import to_images, to_pixels
from t2ipal.pictovoc.scenes import CLASS_NAMES, draw_scene
from t2ipal.pretraining import unet as diffusion
from t2ipal.pretraining.autoencoder import (
    CLASS_CHANNELS,
    CODE_SIZE,
    LATENT_CHANNELS,
    LATENT_SIDE,
    LOOK_CHANNELS,
    PART_CHANNELS,
    POSITION_SIZE,
    AutoencoderConfig,
    draw_scenes,
    known_latents,
    perceptual_loss,
    reconstruction_loss,
    scene_pixels,
    scene_plan,
    train_autoencoder,
)
from t2ipal.pretraining.clip import (
    END_TOKEN,
    ClipConfig,
    _add_stray_words,
    contrastive_loss,
    draw_batch,
    train_clip,
)
from t2ipal.pretraining.judge import JudgeConfig, train_judge
from t2ipal.pretraining.loop import PretrainConfig
from t2ipal.pretraining.unet import (
    PROMPT_TOKENS,
    DiffusionConfig,
    cache_latents,
    clip_tokenizer,
    rows_of_step,
    text_encoder_from,
    train_diffusion,
    velocity_loss,
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"))
    return load_backbone(BackboneConfig(model=str(folder)))


def few(num_steps=2, batch_size=4, **changes):
    return PretrainConfig(num_steps, batch_size, **changes)


def test_contrastive_loss():
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(4, 6, generator=generator) for _ in range(2))
    loss = 0.0
    for i in range(4):
        image, text = images[i] / images[i].norm(), texts[i] / texts[i].norm()
        to_texts = [math.exp(3.0 * float(image @ (t / t.norm()))) for t in texts]
        to_images = [math.exp(3.0 * float(text @ (v / v.norm()))) for v in images]
        loss -= (
            math.log(to_texts[i] / sum(to_texts)) + math.log(to_images[i] / sum(to_images))
        ) / 8
    assert float(contrastive_loss(images, texts, torch.tensor(3.0))) == pytest.approx(loss)


def test_stray_words_are_put_between_start_and_end(backbone):
    tokens = backbone.tokenize(["a dog", "two cats on a sofa", "bus"])
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(_add_stray_words(tokens, 0.0, generator), tokens)
    longer = _add_stray_words(tokens, 1.0, generator)
    for before, after in zip(tokens.tolist(), longer.tolist(), strict=True):
        before = before[: before.index(END_TOKEN) + 1]
        after = after[: after.index(END_TOKEN) + 1]
        assert after[0] == before[0] and 1 <= len(after) - len(before) <= 3
        rest = iter(after)
        assert all(word in rest for word in before)  # in the same order


def test_draw_batch():
    images, captions, labels = draw_batch("train", 7, 3)
    assert images.shape == (3, 64, 64, 3) and labels.shape == (3, 20) and len(captions) == 3
    assert np.array_equal(images[1], draw_scene("train", 8).image)
    assert np.array_equal(labels[1], draw_scene("train", 8).labels)
    assert draw_batch("train", 8, 1)[1] == captions[1:2]
    web_images, texts, web_labels = draw_batch("train", 7, 3, domain="web")
    assert np.array_equal(web_labels, labels) and not np.array_equal(web_images, images)
    assert all(text != caption for text, caption in zip(texts, captions, strict=True))


def test_clip_training_writes_a_backbone(tmp_path):
    result = train_clip(ClipConfig(few(3)), tmp_path / "work", tmp_path / "clip")
    assert math.isfinite(result["loss"])
    backbone = load_backbone(BackboneConfig(model=str(tmp_path / "clip")))
    assert float(backbone.model.logit_scale.exp()) == pytest.approx(100, rel=2e-3)
    assert backbone.image_size_px == 128
    features = backbone.encode_images(torch.from_numpy(draw_batch("test", 0, 2)[0]))
    assert features.local_features.shape == (2, 16, backbone.embed_dim)
    # What is in the folder is what was trained, in half precision.
    trained = torch.load(tmp_path / "work" / "clip.ckpt", weights_only=True)["model"]
    for name, value in backbone.model.state_dict().items():
        torch.testing.assert_close(value, trained[name].half().to(value.dtype))


def test_pixels_and_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 4, 4) and pixels.min() >= -1 and pixels.max() <= 1
    assert np.array_equal(to_images(pixels), images)
    assert to_images(torch.full((1, 3, 1, 1), 7.0)).max() == 255


def test_reconstruction_loss():
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    error = (output - target).numpy()
    down = [abs(error[:, :, y + 1] - error[:, :, y]).mean() for y in range(3)]
    right = [abs(error[:, :, :, x + 1] - error[:, :, :, x]).mean() for x in range(4)]
    expected = abs(error).mean() + 0.3 * (np.mean(down) + np.mean(right)) / 2
    assert float(reconstruction_loss(output, target, 0.3)) == pytest.approx(expected, rel=1e-5)
    assert reconstruction_loss(target, target, 1.0) == 0


def test_perceptual_loss_reaches_the_output_only(backbone):
    target = scene_pixels(draw_scenes("train", 0, 2)).requires_grad_(True)
    output = scene_pixels(draw_scenes("train", 2, 2)).requires_grad_(True)
    assert float(perceptual_loss(backbone, target, target).detach()) == pytest.approx(0, abs=1e-6)
    loss = perceptual_loss(backbone, output, target)
    loss.backward()
    assert loss > 0 and output.grad.abs().sum() > 0
    assert target.grad is None or target.grad.abs().sum() == 0


def test_class_channels_say_what_is_where():
    scenes = draw_scenes("train", 0, 6)
    plan = scene_plan(scenes)
    assert plan.shape == (6, CLASS_CHANNELS + PART_CHANNELS, LATENT_SIDE, LATENT_SIDE)
    classes = plan[:, :CLASS_CHANNELS]
    codes = {}
    for row, scene in enumerate(scenes):
        for y in range(LATENT_SIDE):
            for x in range(LATENT_SIDE):
                shown = scene.class_map[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                if (shown == shown[0, 0]).all():
                    code = tuple(classes[row, :, y, x].tolist())
                    assert codes.setdefault(int(shown[0, 0]), code) == code
    assert codes[0] == (0.0,) * CLASS_CHANNELS
    objects = [code for shown, code in codes.items() if shown]
    assert len(set(objects)) == len(objects) > 5
    assert {abs(number) for code in objects for number in code} == {CODE_SIZE}


def test_part_channels_say_which_drawing_and_where_in_it():
    scenes = draw_scenes("train", 0, 20)
    plan = scene_plan(scenes)
    signs, inside = plan[:, CLASS_CHANNELS:].split(2, dim=1)
    shown = torch.from_numpy(np.stack([scene.class_map for scene in scenes])).float()
    empty = torch.nn.functional.max_pool2d(shown, 4) == 0
    assert signs.abs().sum(dim=1)[empty].sum() == inside.abs().sum(dim=1)[empty].sum() == 0
    assert empty.any() and inside.abs().max() <= POSITION_SIZE
    for row, scene in enumerate(scenes):
        for y, x in ((3, 4), (9, 8), (12, 12)):
            cell = scene.part_map[4 * y : 4 * y + 4 : 2, 4 * x : 4 * x + 4 : 2].reshape(4, 3)
            assert inside[row, :, y, x].tolist() == pytest.approx(
                POSITION_SIZE * cell[:, 1:].mean(axis=0), abs=1e-5
            )
    # A cell that one object fills names its drawing in full.
    classes = plan[:, :CLASS_CHANNELS]
    whole = classes.abs().amin(dim=1) == CODE_SIZE
    assert whole.sum() > 200 and (signs.abs()[:, 0][whole] == CODE_SIZE).float().mean() > 0.9


def test_known_latents(pipeline_dir):
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(pipeline_dir / "vae", dtype=torch.float32)
    scenes = draw_scenes("train", 3, 2)
    latents = known_latents(vae, scenes)
    assert torch.equal(latents[:, LOOK_CHANNELS:], scene_plan(scenes))
    with torch.no_grad():
        encoded = vae.encode(scene_pixels(scenes)).latents
    torch.testing.assert_close(
        latents[:, :LOOK_CHANNELS], encoded[:, :LOOK_CHANNELS], rtol=0.05, atol=0.05
    )


@pytest.fixture(scope="module")
def pipeline_dir(tmp_path_factory, backbone):
    """A Stable Diffusion after two steps of each of its parts."""
    folder = tmp_path_factory.mktemp("models")
    config = AutoencoderConfig(few())
    train_autoencoder(config, backbone, folder / "work", folder / "pipeline")
    assert json.loads((folder / "pipeline" / "vae.json").read_text())["absolute_error"] > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "CHUNK_SCENES", 50)
        train_diffusion(
            DiffusionConfig(few(), num_scenes=60, captions_per_scene=2),
            backbone,
            folder / "pipeline" / "vae",
            folder / "work",
            folder / "pipeline",
        )
    return folder / "pipeline"


def test_synthesizer_loads_what_was_trained(pipeline_dir):
    config = SynthesisConfig(pipeline=str(pipeline_dir), num_inference_steps=2, precision="fp32")
    synthesizer = Synthesizer(config, device="cpu")
    batch = {"caption_id": np.array(["x"]), "caption": np.array(["A dog."]), "k": np.array([0])}
    made = synthesizer(batch)
    assert made["image"].shape == (1, 64, 64, 3) and made["status"].tolist() == ["ok"]
    parts = synthesizer.pipeline
    assert parts.scheduler.config.prediction_type == "v_prediction"
    assert parts.tokenizer.model_max_length == PROMPT_TOKENS
    # Latents have about unit variance after scaling, as the noise schedule takes for granted.
    latents = known_latents(parts.vae, draw_scenes("train", 10_000_000, 64))
    assert float((latents * parts.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.1)


def test_training_goes_on_from_a_pipeline(pipeline_dir, backbone, tmp_path, monkeypatch):
    """No step, no change: the UNet and the text tower are those of `start`."""
    monkeypatch.setattr(diffusion, "CHUNK_SCENES", 50)
    monkeypatch.setattr(diffusion, "train_steps", lambda *_: {})
    config = DiffusionConfig(few(), num_scenes=50, start=str(pipeline_dir))
    train_diffusion(config, backbone, pipeline_dir / "vae", tmp_path, tmp_path / "new")
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        files = [folder / f"{part}.safetensors" for folder in (pipeline_dir, tmp_path / "new")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_training_goes_on_from_a_unet_of_fewer_channels():
    """What is new changes nothing: the old channels' output is the old UNet's."""
    from diffusers import UNet2DConditionModel

    narrow, wide = (
        UNet2DConditionModel(**(diffusion.ARCHITECTURE | channels), cross_attention_dim=8)
        for channels in ({"in_channels": 12, "out_channels": 12}, {})
    )
    diffusion.load_narrower(wide, narrow.state_dict())
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=generator)
    hidden = torch.randn(2, 5, 8, generator=generator)
    with torch.no_grad():
        output = wide(latents, 7, hidden).sample
        torch.testing.assert_close(output[:, :12], narrow(latents[:, :12], 7, hidden).sample)
    assert output[:, 12:].abs().max() == 0


def test_latents_are_cached_and_never_mixed(pipeline_dir, backbone, monkeypatch):
    from diffusers import AutoencoderTiny
    from safetensors.torch import load_file

    monkeypatch.setattr(diffusion, "CHUNK_SCENES", 50)
    config = DiffusionConfig(few(), num_scenes=60, captions_per_scene=2)
    vae = AutoencoderTiny.from_pretrained(pipeline_dir / "vae", dtype=torch.float32)
    paths = cache_latents(vae, config, pipeline_dir.parent / "work")
    assert [path.name for path in paths] == [f"latents-0000{k}.safetensors" for k in (0, 1)]
    latents = load_file(paths[1])["latents"]
    captions = json.loads(paths[1].with_suffix(".json").read_text())
    assert len(latents) == len(captions) == 50 and {len(row) for row in captions} == {2}
    direct = known_latents(vae, draw_scenes("train", 50, 4))
    torch.testing.assert_close(latents[:4].float(), direct, rtol=0.05, atol=0.05)

    with torch.no_grad():
        vae.decoder.layers[-1].bias.add_(1.0)  # as tuning does; the latents stay what they are
    assert cache_latents(vae, config, pipeline_dir.parent / "work") == paths
    with torch.no_grad():
        vae.encoder.layers[-1].bias.add_(1.0)
    with pytest.raises(ValueError, match="latents made with encoder, captions_per_scene as now"):
        cache_latents(vae, config, pipeline_dir.parent / "work")


def test_rows_of_step():
    for epoch in range(2):
        parts = [rows_of_step(12, 4, 3 * epoch + place, seed=5) for place in range(3)]
        assert sorted(torch.cat(parts).tolist()) == list(range(12))
    first, second = rows_of_step(12, 4, 0, seed=5), rows_of_step(12, 4, 3, seed=5)
    assert first.tolist() != second.tolist()
    assert torch.equal(first, rows_of_step(12, 4, 0, seed=5))
    assert len(set(rows_of_step(13, 4, 2, seed=0).tolist())) == 4  # a rest waits for another pass
    with pytest.raises(ValueError, match="num_scenes must be >= 128, a batch, got 100"):
        DiffusionConfig(num_scenes=100)


def test_velocity_loss():
    from diffusers import DDIMScheduler

    generator = torch.Generator().manual_seed(0)
    predicted, clean, noise = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(3))
    alphas = torch.tensor([0.99, 0.5, 0.01])
    total = 0.0
    for row, a in enumerate(alphas.tolist()):
        velocity = math.sqrt(a) * noise[row] - math.sqrt(1 - a) * clean[row]
        total += float((predicted[row] - velocity).square().mean()) / 3
    assert float(velocity_loss(predicted, clean, noise, alphas)) == pytest.approx(total)

    scheduler = DDIMScheduler(**diffusion.NOISE_SCHEDULE)
    time = torch.tensor([10, 500, 990])
    exact = scheduler.get_velocity(clean, noise, time)
    at_time = scheduler.alphas_cumprod[time]
    assert float(velocity_loss(exact, clean, noise, at_time)) == pytest.approx(0, abs=1e-8)


def test_text_encoder_gives_the_backbones_hidden_states(backbone):
    tokens = backbone.tokenize(["a dog", "two cats on a sofa."])
    ours = text_encoder_from(backbone)(tokens).last_hidden_state
    theirs = text_positions(backbone.model, backbone.embed_tokens(tokens))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_tokenizer_gives_the_backbones_ids(backbone):
    texts = [text for _, text in world_captions("test", 60)]
    texts += ["", "TV monitor's screen, 42 km/h!", "an aeroplane — café"]
    tokenizer = clip_tokenizer()
    ours = tokenizer(texts, padding="max_length", truncation=True).input_ids
    for mine, theirs in zip(ours, backbone.tokenize(texts).tolist(), strict=True):
        length = theirs.index(END_TOKEN) + 1
        assert mine[:length] == theirs[:length] and set(mine[length:]) <= {END_TOKEN}
    cut = tokenizer(["dog " * 99], truncation=True).input_ids[0]
    assert len(cut) == PROMPT_TOKENS and cut[-1] == END_TOKEN


def test_judge_training_writes_a_judge(tmp_path):
    config = JudgeConfig(few(ema_decay=0.9))
    result = train_judge(config, tmp_path / "work", tmp_path / "judge")
    assert math.isfinite(result["loss"])
    judge = load_judge(tmp_path / "judge")
    assert not judge.training
    images = np.stack([draw_scene("test", index).image for index in range(3)])
    probs = judge.probs(images)
    assert probs.shape == (3, 20) and ((probs >= 0) & (probs <= 1)).all()
    assert judge.probs(np.repeat(np.repeat(images, 2, 1), 2, 2)).shape == (3, 20)
    names = json.loads((tmp_path / "judge" / "config.json").read_text())["class_names"]
    assert tuple(names) == CLASS_NAMES
    with pytest.raises(FileNotFoundError, match=r"No judge in .*work\. Run jobs/pretrain_pictovoc"):
        load_judge(tmp_path / "work")


def test_judge_adds_up_the_evidence_of_all_places(tmp_path):
    train_judge(JudgeConfig(few(1)), tmp_path / "work", tmp_path / "judge")
    judge = load_judge(tmp_path / "judge")
    maps = []
    judge.head.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        logits = judge(scene_pixels(draw_scenes("test", 0, 2)))
    assert maps[0].shape == (2, 20, 8, 8)
    torch.testing.assert_close(logits, maps[0].exp().sum(dim=(2, 3)).log())
