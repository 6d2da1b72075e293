"""Text encoders unlike CLIP's own, with random weights, against what open_clip makes of them."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_clip import COCA, SIGLIP, TEXT, TIMM_VISION, VIT, write_tiny_clip
from torch.nn import functional

from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.prompts import prompt_tokens, with_context
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import recipe
from t2ipal.training.stacked import Stack

WORDS = ["a", "photo", "of", "dog", "two", "cats", "on", "sofa", "tv", "monitor", "x"]
TEXTS = ["a dog", "a photo of two cats on a sofa", "", "tv monitor " * 30]
CLIPS = {
    "siglip": SIGLIP,
    "coca": COCA,
    # As EVA's: a causal encoder of its own, and a class token of timm's.
    "eva": {
        **VIT,
        "custom_text": True,
        "vision_cfg": {
            **TIMM_VISION,
            "timm_model_name": "test_vit",
            "timm_pool": "token",
            "timm_proj": "linear",
        },
    },
    # An end token that another tokenizer numbers.
    "eos": {**VIT, "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 3, "hf_tokenizer_name": "x"}},
    "all padding": {**VIT, "custom_text": True, "text_cfg": {**TEXT, "no_causal_mask": True}},
}


def write_tokenizer(folder: Path, starts: bool) -> None:
    """Of some words: the end is 1 and the padding too (SigLIP), or 3 behind a start that is 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "</s>", "<start>", "<end>"]
    tokens = Tokenizer(
        models.WordLevel({w: n for n, w in enumerate([*special, *WORDS])}, unk_token="<unk>")
    )
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    end = special[3 if starts else 1]
    around = f"<start> $A {end}" if starts else f"$A {end}"
    tokens.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[(name, n) for n, name in enumerate(special)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token=end, pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=CLIPS)
def clip(request, tmp_path_factory):
    architecture = CLIPS[request.param]
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip") / "clip", architecture)
    if "hf_tokenizer_name" in architecture["text_cfg"]:
        write_tokenizer(folder, starts=request.param == "eos")
    backbone = load_backbone(BackboneConfig(model=str(folder)))
    torch.manual_seed(1)
    for parameter in backbone.model.parameters():  # far from what starts a training
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return backbone


def by_open_clip(clip, texts):
    from open_clip import get_tokenizer

    tokens = get_tokenizer(f"local-dir:{clip.config.model}")(texts)
    with torch.no_grad():
        return functional.normalize(clip.model.encode_text(tokens), dim=-1)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_captions_are_open_clips(clip):
    features = clip.encode_texts(TEXTS)
    assert_close(features.global_features, by_open_clip(clip, TEXTS))
    alone = clip.encode_texts(TEXTS[:1])
    assert_close(alone.global_features, features.global_features[:1])
    assert_close(alone.local_features[0], features.local_features[0, : alone.mask.shape[1]])
    assert alone.mask.all() and features.mask.shape == features.local_features.shape[:2]


def test_a_caption_that_shows_what_pads_others(clip):
    """CoCa's padding is CLIP's token of "!"."""
    texts = ["oh! a dog! there", "!"]
    assert_close(clip.encode_texts(texts).global_features, by_open_clip(clip, texts))


def test_prompts_are_open_clips(clip):
    names = ("dog", "tv monitor", "two cats on a sofa")
    prompts = prompt_tokens(names, clip, context_words="a photo of a")
    assert prompts.num_context == 4
    expected = by_open_clip(clip, [f"a photo of a {name}." for name in names])
    assert_close(clip.encode_token_embeddings(prompts.embeddings, prompts.end), expected)


@pytest.mark.parametrize("class_specific", [False, True])
def test_a_context_is_put_before_the_names(clip, class_specific):
    """Vectors of words give what the words give; gradients reach them all."""
    names, words = ("dog", "two cats on a sofa"), "a photo of a"
    prompts = prompt_tokens(names, clip, context_length=4)
    of_words = prompt_tokens(names, clip, context_words=words).embeddings
    context = of_words[:, 1:5] if class_specific else of_words[0, 1:5]
    context = torch.stack([context, torch.zeros_like(context)]).requires_grad_()
    made = with_context(prompts.embeddings, context)
    layout = clip.prompt_layout(prompts.end, made.shared.shape[1])
    encoded = clip.encode_token_embeddings(made.own, prompts.end, made.shared, layout)
    expected = by_open_clip(clip, [f"{words} {name}." for name in names])
    assert_close(encoded[0], expected)
    assert encoded.shape == (2, 2, clip.embed_dim)
    encoded[0, :, 0].sum().backward()
    assert (context.grad[0].abs().sum(dim=-1) > 0).all() and (context.grad[1] == 0).all()


def test_many_classes_are_encoded_in_groups(clip):
    names = tuple(f"{word} {other}" for word in WORDS for other in WORDS[:8])
    prompts = prompt_tokens(names, clip, context_words="a photo of a")
    encoded = clip.encode_token_embeddings(prompts.embeddings, prompts.end)
    assert_close(encoded, by_open_clip(clip, [f"a photo of a {name}." for name in names]))


def test_images_are_open_clips(clip):
    side = clip.image_size_px
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, side, side, 3), generator=generator, dtype=torch.uint8)
    features = clip.encode_images(images)
    with torch.no_grad():
        expected = clip.model.encode_image(clip.preprocess(images))
    assert_close(features.global_features, functional.normalize(expected, dim=-1))
    assert torch.equal(features.global_features, features.pooled_features)
    assert features.local_features.shape[::2] == (2, clip.embed_dim)


def test_a_local_feature_is_the_pool_of_one_patch_alone(clip):
    visual = clip.model.visual
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and trunk.attn_pool is not None:
        whole = lambda pixels: trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]  # noqa: E731
        pool = lambda patch: visual.head(trunk.head(trunk.fc_norm(trunk.attn_pool(patch))))  # noqa: E731
    elif trunk is None and visual.attn_pool is not None:
        whole = lambda pixels: visual.transformer(visual._embeds(pixels))[:, 1:]  # noqa: E731
        pool = lambda patch: visual._pool(patch)[0] @ visual.proj  # noqa: E731
    else:
        pytest.skip("it has no attention pool")
    side = clip.image_size_px
    images = torch.arange(side * side * 3).remainder(251).to(torch.uint8).view(1, side, side, 3)
    features = clip.encode_images(images).local_features[0]
    with torch.no_grad():
        patches = whole(clip.preprocess(images))[0]
        alone = torch.cat([pool(patch[None, None]) for patch in patches])
    assert_close(features, functional.normalize(alone, dim=-1))


def test_methods_learn_on_it(clip):
    """Prompts and prototypes: a few steps lower the loss."""
    names = ("dog", "sofa")
    settings = recipe("t2ipal", "pictovoc", names, names, 0)
    method = dataclasses.replace(settings.method, context_length=4).build(clip, 0)
    texts = clip.encode_texts(["a dog", "a sofa", "a dog on a sofa", "two sofa"])
    labels = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 1]])
    data = FeatureSet(texts.global_features, texts.local_features, texts.mask, labels)
    images = dataclasses.replace(data, mask=None)
    features = TrainingFeatures(data, images, torch.arange(4)[:, None])
    training = TrainingConfig(num_epochs=4, lr=0.01, warmup_epochs=0)
    stack = Stack([method, copy.deepcopy(method)], [training, training], features)
    history = fit(method, features, training).history
    assert history[-1].loss < history[0].loss
    for epoch in range(2):
        assert stack.train_epoch().tolist() == pytest.approx([history[epoch].loss] * 2, rel=1e-4)


def test_towers_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(ValueError, match="roberta-ViT-B-32: it has a text encoder of Hugging Face"):
        load_backbone(BackboneConfig(model="roberta-ViT-B-32", pretrained="laion2b_s12b_b32k"))
    pooled = {**SIGLIP, "vision_cfg": {**TIMM_VISION, "timm_pool": "avg"}}
    folder = write_tiny_clip(tmp_path / "clip", pooled)
    write_tokenizer(folder, starts=False)
    with pytest.raises(ValueError, match="visual encoder that is neither a ResNet nor a ViT with"):
        load_backbone(BackboneConfig(model=str(folder)))
    with pytest.raises(ValueError, match='dense_features "value" needs a ResNet or a plain ViT'):
        folder = write_tiny_clip(tmp_path / "coca", COCA)
        load_backbone(BackboneConfig(model=str(folder), dense_features="value"))


@pytest.mark.parametrize(
    "change", [{"act_kwargs": None}, {"pool_type": "argmax"}, {"no_causal_mask": False}]
)
def test_what_is_not_in_the_weights_is_in_the_fingerprint(tmp_path, change):
    folder = write_tiny_clip(tmp_path / "clip", SIGLIP)
    write_tokenizer(folder, starts=False)
    before = load_backbone(BackboneConfig(model=str(folder))).fingerprint
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"].update(change)
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    assert load_backbone(BackboneConfig(model=str(folder))).fingerprint != before
