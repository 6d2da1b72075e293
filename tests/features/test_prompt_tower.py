"""Prompts are encoded as the plain tower does at 77 positions: outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clip import RESNET, TEXT, VIT, write_tiny_clip

from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.prompt_tower import (
    BIN_TOKENS,
    can_share_prefix,
    encode_plain,
    encode_shared,
    joined,
    lay_out,
)
from t2ipal.features.towers import text_positions

LAYER_SCALE = {**TEXT, "layers": 3, "ls_init_value": 0.5, "act_kwargs": {"approximate": "tanh"}}
CUSTOM = {**TEXT, "qk_norm": True, "scale_attn": True, "scale_fc": True, "scale_heads": True}
CLIPS = {
    "resnet": RESNET,
    "vit": VIT,
    "quick gelu": {**VIT, "quick_gelu": True},
    "layer scale": {**RESNET, "text_cfg": LAYER_SCALE},
    "custom": {**VIT, "text_cfg": CUSTOM},
}
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The CLIP that ships, and tiny ones with each kind of text tower."""
    folder = tmp_path_factory.mktemp("clips")
    names = {name: str(write_tiny_clip(folder / name, clip)) for name, clip in CLIPS.items()}
    names["pictovoc"] = "pictovoc"
    return {name: load_backbone(BackboneConfig(model=at)).model for name, at in names.items()}


def at_all_positions(model, embeddings, end):
    """The reference: 77 tokens, whatever the prompts' length."""
    sets, classes, length, _ = embeddings.shape
    padded = F.pad(embeddings, (0, 0, 0, 77 - length))
    positions = text_positions(model, padded.flatten(0, 1)).view(padded.shape)
    return positions[:, torch.arange(classes), end].view(sets, classes, -1)


@settings(max_examples=8, deadline=None)
@given(
    sets=st.integers(1, 3),
    own_sets=st.booleans(),
    num_shared=st.integers(1, 17),
    lengths=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 59)), min_size=1, max_size=9),
    kept_tokens=st.sampled_from([1, 20, 1024]),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize("clip", ["pictovoc", *CLIPS])
@PRECISIONS
def test_equals_77_tokens(
    models, clip, dtype, close, sets, own_sets, num_shared, lengths, kept_tokens, seed
):
    """In groups and at once; what is not shared the same in all sets, or not (contexts of classes).

    Errors are relative to the largest value.
    """
    generator = torch.Generator().manual_seed(seed)
    model = models[clip].to(dtype)
    width = model.token_embedding.embedding_dim

    def noise(*shape):
        return 0.1 * torch.randn(*shape, width, generator=generator, dtype=dtype)

    classes = len(lengths)
    beginning, names = (
        noise(sets, num_shared),
        noise(sets if own_sets else 1, classes, max(lengths)),
    )
    end = num_shared + torch.tensor(lengths) - 1
    weight = noise(sets, classes)

    def plain(shared, own):
        return encode_plain(model, joined(shared, own), end, kept_tokens)

    def packed(shared, own):
        return encode_shared(model, shared, own, lay_out(end, num_shared, kept_tokens))

    def result(encode):
        shared, own = (part.clone().requires_grad_() for part in (beginning, names))
        output = encode(shared, own)
        (output * weight).sum().backward()
        return output.detach(), shared.grad, own.grad

    assert can_share_prefix(model) == (clip != "custom")
    expected = result(lambda shared, own: at_all_positions(model, joined(shared, own), end))
    for encode in (plain, packed) if can_share_prefix(model) else (plain,):
        for known, found in zip(expected, result(encode)):
            assert (known - found).abs().max() <= close * known.abs().max()


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 76), min_size=1, max_size=60),
    num_shared=st.integers(1, 30),
    kept_tokens=st.sampled_from([1, 100, 1024]),
)
def test_every_own_token_lies_in_one_slot(lengths, num_shared, kept_tokens):
    end = num_shared + torch.tensor(lengths) - 1
    layout = lay_out(end, num_shared, kept_tokens)
    assert sum(len(group.last) for group in layout.groups) == len(lengths)
    first = 0
    for group in layout.groups:
        bins, rows, keys = group.seen.shape
        size = keys - num_shared
        assert len(group.own) == bins * size
        begun, seen = group.seen.split([rows - size, size], dim=1)
        if bins == 1:
            assert torch.equal(begun[0], torch.ones(num_shared, keys, dtype=torch.bool).tril())
        else:
            assert rows == size
        assert size <= max(BIN_TOKENS, 2 * max(lengths))
        for slot, length in zip(group.last.tolist(), lengths[first:]):
            row = seen[slot // size, slot % size]
            assert row[:num_shared].all()
            slots = slot // size * size + row[num_shared:].nonzero().flatten()
            start = first * max(lengths)
            assert group.own[slots].tolist() == list(range(start, start + length))
            assert group.position[slots].tolist() == list(range(num_shared, num_shared + length))
            first += 1


@pytest.mark.parametrize("lengths", [[3] * 50 + [4] * 24 + [5] * 5 + [6], [20] * 80])
def test_little_room_is_left_over(lengths):
    """Names behind a shared context, and contexts of classes."""
    group = lay_out(16 + torch.tensor(lengths), 17, 2048).groups[0]
    assert len(group.own) <= 1.05 * sum(lengths)


def test_another_tower_is_encoded_as_it_is(models, monkeypatch):
    assert can_share_prefix(models["vit"])
    monkeypatch.setattr(models["vit"], "attn_mask", None)
    assert not can_share_prefix(models["vit"])
