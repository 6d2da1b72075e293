"""The shared prefix gives what the plain tower gives: outputs and gradients, in both precisions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clip import RESNET, VIT, write_tiny_clip

from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.prompt_tower import can_share_prefix, encode_shared
from t2ipal.features.towers import text_positions


@pytest.fixture(scope="module", params=["pictovoc", "resnet", "vit"])
def model(request, tmp_path_factory):
    """The CLIP that ships, and tiny ones of both architectures."""
    name = request.param
    if name != "pictovoc":
        folder = tmp_path_factory.mktemp("clips") / name
        write_tiny_clip(folder, RESNET if name == "resnet" else VIT)
        name = str(folder)
    return load_backbone(BackboneConfig(model=name)).model


def plain(model, embeddings, end):
    sets, classes = embeddings.shape[:2]
    positions = text_positions(model, embeddings.flatten(0, 1)).view(embeddings.shape)
    return positions[:, torch.arange(classes), end].view(sets, classes, -1)


@settings(max_examples=15, deadline=None)
@given(
    sets=st.integers(1, 3),
    num_shared=st.integers(1, 17),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    group_size=st.integers(1, 7),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_plain_tower(model, dtype, close, sets, num_shared, lengths, group_size, seed):
    """Errors are relative to the largest value; names of one token and of many."""
    generator = torch.Generator().manual_seed(seed)
    width = model.token_embedding.embedding_dim

    def noise(*shape):
        return 0.1 * torch.randn(*shape, width, generator=generator, dtype=dtype)

    classes, own = len(lengths), max(lengths)
    prefix, names = noise(sets, 1, num_shared), noise(1, classes, own)
    end = num_shared + torch.tensor(lengths) - 1
    weight = noise(sets, classes)
    model.to(dtype)
    results = []
    for encode in (plain, lambda m, e, at: encode_shared(m, e, at, num_shared, group_size)):
        context = prefix.clone().requires_grad_()
        words = names.clone().requires_grad_()
        whole = torch.cat(
            [context.expand(-1, classes, -1, -1), words.expand(sets, -1, -1, -1)], dim=2
        )
        output = encode(model, whole, end)
        (output * weight).sum().backward()
        results.append((output.detach(), context.grad, words.grad))
    model.to(torch.float32)
    for expected, found in zip(*results):
        assert (expected - found).abs().max() <= close * expected.abs().max()


def test_another_tower_is_encoded_as_it_is(model, monkeypatch):
    assert can_share_prefix(model)
    monkeypatch.setattr(model, "attn_mask", None)
    assert not can_share_prefix(model)
