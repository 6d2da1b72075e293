import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from PIL import Image
from tiny_clip import RESNET, VIT, write_tiny_clip
from torch.nn import functional

from t2ipal.features.backbone import WEIGHTS_FILE, Backbone, load_backbone, load_text_tower
from t2ipal.features.config import BackboneConfig
from t2ipal.features.photographs import load_photograph
from t2ipal.features.sets import FeatureSet
from t2ipal.features.towers import resize_and_crop

TEXTS = ["a dog", "a photo of two cats on a sofa in the living room.", "", "tv monitor"]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("resnet"))
    return load_backbone(BackboneConfig(model=str(folder)))


@pytest.fixture(scope="module")
def vit_dir(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("vit"), VIT)


@pytest.fixture(scope="module")
def vit(vit_dir):
    return load_backbone(BackboneConfig(model=str(vit_dir)))


def smooth_image(height, width, seed=0):
    """Colors that change slowly, as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def random_images(side, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def unit(features):
    return functional.normalize(features.detach(), dim=-1)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_sizes(resnet, vit):
    assert (resnet.embed_dim, resnet.text_width, resnet.context_length) == (12, 16, 77)
    assert (resnet.image_size_px, vit.image_size_px) == (64, 32)
    assert resnet.logit_scale == pytest.approx(1 / 0.07)
    assert resnet.device == torch.device("cpu")


def test_local_features_of_a_larger_picture(resnet):
    """More of them, from the same network; all else is that of the model's own size."""
    side, images = resnet.image_size_px, random_images(50)
    own = resnet.encode_images(images)
    config = replace(resnet.config, local_image_size_px=2 * side)
    finer = load_backbone(config)
    features = finer.encode_images(images)
    assert features.local_features.shape[1] == 4 * own.local_features.shape[1]
    assert torch.equal(features.global_features, own.global_features)
    assert torch.equal(features.pooled_features, own.pooled_features)
    # As a model would give them that looks at pictures of that size.
    twin = load_backbone(resnet.config)
    pixels = twin.preprocess(images, 2 * side)
    assert pixels.shape == (3, 3, 2 * side, 2 * side)
    visual = twin.model.visual
    grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    rows = grid.permute(0, 2, 3, 1).flatten(1, 2)
    expected = visual.attnpool.c_proj(visual.attnpool.v_proj(rows))
    assert_close(features.local_features, unit(expected))
    same = load_backbone(replace(resnet.config, local_image_size_px=side)).encode_images(images)
    assert torch.equal(same.local_features, own.local_features)
    assert resnet.fingerprint == twin.fingerprint != finer.fingerprint


@pytest.mark.parametrize("times", [1, 2])
def test_regions_of_dualcoop(resnet, times):
    """Value path with positions, the mean in front; positions as torch makes a picture larger."""
    images, side = random_images(64), 64 * times
    larger = None if times == 1 else side
    config = replace(resnet.config, dense_features="regions", local_image_size_px=larger)
    backbone = load_backbone(config)
    features, own = backbone.encode_images(images), resnet.encode_images(images)
    assert torch.equal(features.global_features, own.global_features)
    assert torch.equal(features.pooled_features, own.pooled_features)
    visual, pixels = backbone.model.visual, backbone.preprocess(images, side)
    grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    pool, count = visual.attnpool, 2 * times
    positions = pool.positional_embedding
    plane = positions[1:].view(2, 2, -1).permute(2, 0, 1)[None]
    plane = functional.interpolate(plane, (count, count), mode="bilinear")[0]
    assert features.local_features.shape == (3, 1 + count**2, 12)
    for row in range(3):
        tokens = [grid[row].mean(dim=(1, 2)) + positions[0]]
        for y in range(count):
            tokens += [grid[row, :, y, x] + plane[:, y, x] for x in range(count)]
        expected = unit(pool.c_proj(pool.v_proj(torch.stack(tokens))))
        assert_close(features.local_features[row], expected)


def test_only_a_resnet_has_regions(vit_dir):
    with pytest.raises(ValueError, match=r'dense_features "regions" needs a ResNet'):
        load_backbone(BackboneConfig(model=str(vit_dir), dense_features="regions"))


def test_only_a_resnet_takes_another_size(vit_dir):
    with pytest.raises(ValueError, match=r"local_image_size_px needs a ResNet"):
        load_backbone(BackboneConfig(model=str(vit_dir), local_image_size_px=64))
    with pytest.raises(ValueError, match=r"local_image_size_px must be > 0, got 0\."):
        BackboneConfig(local_image_size_px=0)


def test_resnet_features(resnet):
    images = random_images(64)
    visual, pixels = resnet.model.visual, resnet.preprocess(images)
    features = resnet.encode_images(images)
    assert_close(features.pooled_features, unit(resnet.model.encode_image(pixels)))

    positions = visual.attnpool.positional_embedding
    kept = positions.detach().clone()
    positions.zero_()
    without = unit(resnet.model.encode_image(pixels))
    positions.copy_(kept)
    assert_close(features.global_features, without)
    assert not torch.allclose(features.global_features, features.pooled_features, atol=1e-3)

    grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    assert features.local_features.shape == (3, 4, 12)
    for row in range(3):
        for y in range(2):
            for x in range(2):
                value = visual.attnpool.v_proj(grid[row, :, y, x])
                expected = unit(visual.attnpool.c_proj(value))
                assert_close(features.local_features[row, 2 * y + x], expected)


def test_vit_features(vit, vit_dir):
    images = random_images(32)
    visual, pixels = vit.model.visual, vit.preprocess(images)
    features = vit.encode_images(images)
    visual.output_tokens = True
    pooled, patches = visual(pixels)
    visual.output_tokens = False
    assert_close(features.pooled_features, unit(pooled))
    assert_close(features.global_features, unit(pooled))
    assert_close(features.local_features, unit(patches @ visual.proj))

    # Attention among one token alone is its value: the last block, shown one patch after another.
    by_value = load_backbone(BackboneConfig(model=str(vit_dir), dense_features="value"))
    dense = by_value.encode_images(images)
    assert_close(dense.pooled_features, features.pooled_features)
    hidden = visual.transformer.resblocks[0](visual._embeds(pixels))
    for patch in range(16):
        alone = visual.transformer.resblocks[1](hidden[:, 1 + patch : 2 + patch])[:, 0]
        expected = unit(visual.ln_post(alone) @ visual.proj)
        assert_close(dense.local_features[:, patch], expected)
    assert not torch.allclose(dense.local_features, features.local_features, atol=1e-3)


def test_text_features(resnet):
    features = resnet.encode_texts(TEXTS)
    tokens = resnet.tokenize(TEXTS)
    ends = tokens.argmax(dim=-1)
    assert tokens.shape == (4, 77)
    assert_close(features.global_features, unit(resnet.model.encode_text(tokens)))
    assert features.mask.shape[1] == int(ends.max()) + 1  # cut at the longest caption's end
    assert features.mask.sum(dim=1).tolist() == (ends + 1).tolist()
    for row, end in enumerate(ends.tolist()):
        assert_close(features.local_features[row, end], features.global_features[row])
    # The encoder is causal: a shorter batch gives each position the same feature.
    alone = resnet.encode_texts(TEXTS[:1])
    length = alone.mask.shape[1]
    assert_close(alone.local_features[0], features.local_features[0, :length])


def test_a_text_tower_alone(vit_dir, vit):
    alone = load_text_tower(vit.config)
    assert alone.identity == vit.identity and alone.model.visual is None
    assert torch.equal(*(clip.encode_texts(TEXTS).global_features for clip in (alone, vit)))


def test_a_projection_with_a_bias(tmp_path):
    architecture = {**VIT, "text_cfg": {**VIT["text_cfg"], "proj_bias": True}}
    clip = load_backbone(BackboneConfig(model=str(write_tiny_clip(tmp_path, architecture))))
    assert clip.embed_dim == 12
    with torch.no_grad():
        expected = unit(clip.model.encode_text(clip.tokenize(TEXTS)))
    assert_close(clip.encode_texts(TEXTS).global_features, expected)


def test_long_captions_are_cut_at_the_context_length(resnet):
    features = resnet.encode_texts(["dog " * 200])
    assert features.mask.shape == (1, 77) and features.mask.all()


def test_token_embeddings_of_words_give_the_text_feature(resnet):
    tokens = resnet.tokenize(TEXTS)
    ends = tokens.argmax(dim=-1)
    embeddings = resnet.embed_tokens(tokens)
    expected = resnet.encode_texts(TEXTS).global_features
    assert_close(resnet.encode_token_embeddings(embeddings, ends), expected)
    length = int(ends.max()) + 1
    assert_close(resnet.encode_token_embeddings(embeddings[:, :length], ends), expected)


def test_gradients_reach_embeddings_only(resnet):
    tokens = resnet.tokenize(TEXTS[:2])
    ends = tokens.argmax(dim=-1)
    embeddings = resnet.embed_tokens(tokens).clone().requires_grad_(True)
    resnet.encode_token_embeddings(embeddings, ends)[:, 0].sum().backward()
    assert embeddings.grad is not None
    reached = embeddings.grad.abs().sum(dim=-1) > 0
    assert reached.tolist() == (torch.arange(77) <= ends[:, None]).tolist()
    parameters = list(resnet.model.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in parameters)
    assert not resnet.model.training


def test_shapes_are_as_the_signatures_say(resnet):
    def checked(method):
        return jaxtyped(typechecker=beartype)(method)

    checked(Backbone.encode_images)(resnet, random_images(64))
    checked(Backbone.preprocess)(resnet, random_images(20))
    tokens = checked(Backbone.tokenize)(resnet, TEXTS)
    embeddings = checked(Backbone.embed_tokens)(resnet, tokens)
    checked(Backbone.encode_token_embeddings)(resnet, embeddings, tokens.argmax(dim=-1))
    with pytest.raises(Exception, match="images"):
        checked(Backbone.encode_images)(resnet, torch.rand(1, 64, 64, 3))


@pytest.mark.parametrize("size", [(64, 64), (100, 75), (75, 101), (67, 64), (40, 31), (333, 97)])
def test_preprocessing_is_open_clips(resnet, size, tmp_path):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image = smooth_image(*size)
    transform = image_transform_v2(
        PreprocessCfg(**resnet.model.visual.preprocess_cfg), is_train=False
    )
    expected = transform(Image.fromarray(image))
    ours = resnet.preprocess(torch.from_numpy(image)[None])[0]
    assert ours.shape == (3, 64, 64)
    gray_level = 1 / 255 / 0.26  # PIL rounds to whole gray levels after each of its two passes
    assert (ours - expected).abs().max() < 1.6 * gray_level
    assert (ours - expected).abs().mean() < 0.5 * gray_level

    Image.fromarray(image).save(tmp_path / "photograph.png")
    photograph = load_photograph((tmp_path / "photograph.png").read_bytes(), 64)
    assert_close(resnet.preprocess(torch.from_numpy(photograph)[None])[0], expected)


def test_resize_and_crop():
    assert resize_and_crop(64, 64, 64) == ((64, 64), (0, 0))
    assert resize_and_crop(480, 640, 224) == ((224, 298), (0, 37))  # not 299: CLIP rounds down
    assert resize_and_crop(67, 64, 64) == ((67, 64), (2, 0))  # 1.5 rounds to even


def test_fingerprint_differs_where_features_would(resnet, vit, vit_dir, tmp_path):
    def loaded(folder, **changes):
        return load_backbone(BackboneConfig(model=str(folder), **changes)).fingerprint

    prints = [
        vit.fingerprint,
        resnet.fingerprint,
        loaded(vit_dir, dense_features="value"),
        load_backbone(replace(resnet.config, dense_features="regions")).fingerprint,
        loaded(vit_dir, precision="bf16"),
        loaded(write_tiny_clip(tmp_path / "seed", VIT, seed=1)),
        loaded(write_tiny_clip(tmp_path / "activation", {**VIT, "quick_gelu": True})),
    ]
    assert len(set(prints)) == len(prints)
    assert loaded(vit_dir) == vit.fingerprint
    assert all(len(value) == 16 for value in prints)


def test_bf16_is_close_and_comes_back_as_float32(resnet):
    half = Backbone(resnet.model, resnet._text.tokenizer, replace(resnet.config, precision="bf16"))
    images = random_images(64)
    ours, exact = half.encode_images(images), resnet.encode_images(images)
    assert ours.pooled_features.dtype == torch.float32
    assert (ours.local_features - exact.local_features).abs().max() < 0.05


def test_feature_set_rows():
    features = FeatureSet(
        torch.arange(4.0)[:, None], torch.zeros(4, 2, 1), None, torch.eye(4), torch.ones(4, 1)
    )
    some = features.rows(torch.tensor([3, 1]))
    assert len(features) == 4 and len(some) == 2
    assert some.global_features.flatten().tolist() == [3.0, 1.0]
    assert some.mask is None and some.labels[0].tolist() == [0, 0, 0, 1]
    assert len(features.rows(slice(1, 4)).to("cpu")) == 3


def edited(folder, change):
    """The folder with its configuration changed by a function."""
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    change(config["model_cfg"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.update(embed_dim=16),
        lambda model: model["text_cfg"].update(layers=1),
        lambda model: model["text_cfg"].update(layers=3),
        lambda model: model["vision_cfg"].update(image_size=96),
        lambda model: model.update(nonsense=1),
    ],
    ids=["another width", "unexpected weights", "missing weights", "another size", "unknown key"],
)
def test_weights_of_another_shape(tmp_path, change):
    edited(write_tiny_clip(tmp_path / "clip", RESNET), change)
    with pytest.raises(ValueError, match="must be whole and fit its configuration"):
        load_backbone(BackboneConfig(model=str(tmp_path / "clip")))


def test_code_that_lies_in_a_folder_is_not_run(tmp_path, monkeypatch):
    folder = write_tiny_clip(tmp_path / "clip", RESNET)
    trusting = {"hf_tokenizer_name": "own", "tokenizer_kwargs": {"trust_remote_code": True}}
    edited(folder, lambda model: model["text_cfg"].update(trusting))
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    sprung = tmp_path / "sprung"
    (folder / "own.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ValueError, match="is code that comes with it, and no such code is run"):
        load_backbone(BackboneConfig(model=str(folder)))
    assert not sprung.exists()


def test_a_folder_names_no_model_of_others(tmp_path):
    folder = write_tiny_clip(tmp_path / "clip", RESNET)
    edited(folder, lambda model: model["vision_cfg"].update(timm_model_name="hf-hub:stranger/it"))
    with pytest.raises(ValueError, match="it has a visual encoder that lies elsewhere"):
        load_backbone(BackboneConfig(model=str(folder)))
    edited(folder, lambda model: model["text_cfg"].update(hf_model_name="stranger/model"))
    with pytest.raises(ValueError, match="it has a text encoder of Hugging Face"):
        load_backbone(BackboneConfig(model=str(folder)))
    edited(folder, lambda model: model.update(text_cfg=5, vision_cfg=5))
    with pytest.raises(ValueError, match="must be whole and fit its configuration"):
        load_backbone(BackboneConfig(model=str(folder)))


def test_a_damaged_or_incomplete_folder(tmp_path):
    folder = write_tiny_clip(tmp_path / "clip", RESNET)
    config = BackboneConfig(model=str(folder))
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="must be whole"):
        load_backbone(config)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"must hold {WEIGHTS_FILE}; .*clip does not"):
        load_backbone(config)
    (folder / "open_clip_config.json").write_text("{")
    (folder / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(ValueError, match="Could not load valid config"):
        load_backbone(config)
    with pytest.raises(FileNotFoundError, match=r"must hold open_clip_config\.json"):
        load_backbone(BackboneConfig(model=str(tmp_path / "nowhere")))


def test_models_without_the_parts_that_are_read(tmp_path):
    average = {**VIT, "vision_cfg": {**VIT["vision_cfg"], "pool_type": "avg"}}
    folder = write_tiny_clip(tmp_path / "average", average)
    with pytest.raises(ValueError, match=r"got .*average: it has a visual encoder that"):
        load_backbone(BackboneConfig(model=str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "RN1O1"}, r"Unknown backbone 'RN1O1'\. Did you mean 'RN101'"),
        (
            {"model": "RN50", "pretrained": "opnai"},
            r"pretrained tag 'opnai'\. Did you mean 'openai'",
        ),
        ({"precision": "fp8"}, "Unknown precision 'fp8'"),
        ({"dense_features": "values"}, "Did you mean 'value'"),
    ],
)
def test_unknown_names(changes, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(BackboneConfig(**changes))


@pytest.mark.parametrize(
    ("model", "tag", "quick"),
    [
        ("RN101", "openai", True),
        ("ViT-B-16", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
    ],
)
def test_activation_is_the_one_that_the_weights_were_trained_with(monkeypatch, model, tag, quick):
    import open_clip

    class NoDownloadError(Exception):
        pass

    def create_model(name, pretrained, force_quick_gelu):
        assert (name, pretrained, force_quick_gelu) == (model, tag, quick)
        raise NoDownloadError

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(NoDownloadError):
        load_backbone(BackboneConfig(model=model, pretrained=tag))


def test_short_memory_halves_the_batch(vit_dir, monkeypatch):
    backbone = load_backbone(BackboneConfig(model=str(vit_dir)))
    images, texts = random_images(40, count=5), [*TEXTS, "a bus"]
    whole = backbone.encode_images(images), backbone.encode_texts(texts)
    sizes, preprocess = [], backbone.preprocess

    def check(rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no room")

    def small(images, side=None):
        check(images)
        return preprocess(images, side)

    monkeypatch.setattr(backbone, "preprocess", small)
    embedding = backbone.model.token_embedding
    embedding.register_forward_pre_hook(lambda module, arguments: check(arguments[0]))
    for encoded, expected in zip((backbone.encode_images, backbone.encode_texts), whole):
        inputs = images if expected is whole[0] else texts
        for name, tensor in vars(encoded(inputs)).items():
            assert_close(tensor.float(), getattr(expected, name).float())
    assert sizes == [5, 2, 3, 1, 2] * 2
    encoded = backbone.encode_images(images)
    assert sizes[10:] == [2, 1, 2] and len(encoded.global_features) == 5


def test_the_worlds_own_clips_by_their_names():
    small, deep = (load_backbone(BackboneConfig(model=n)) for n in ("pictovoc", "pictovoc_deep"))
    counts = [sum(p.numel() for p in each.model.visual.parameters()) for each in (small, deep)]
    assert counts[1] > 1.2 * counts[0] and small.embed_dim == deep.embed_dim
    assert small.fingerprint != deep.fingerprint
    assert deep.encode_images(random_images(64)).local_features.shape == (
        3,
        16,
        128,
    )
    with pytest.raises(ValueError, match="Did you mean 'pictovoc_deep'"):
        load_backbone(BackboneConfig(model="pictovoc-deep"))
