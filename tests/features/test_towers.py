"""Features against a plain transcription, for random weights at several sizes."""

import pytest
import torch
from plain_clip import PlainClip
from tiny_clip import RESNET, VIT, write_tiny_clip
from torch.nn import functional

from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig

TEXTS = ["a dog", "a photo of two cats on a sofa."]


def shaken(clip, seed=3):
    """The CLIP with norms that do something: at first they are all ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in clip.model.named_parameters():
            if value.dim() == 1 and "logit" not in name:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
        for name, value in clip.model.named_buffers():
            if name.endswith("running_mean"):
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
            if name.endswith("running_var"):
                value.mul_(1 + 0.5 * torch.rand(value.shape, generator=generator))
    return clip


@pytest.mark.parametrize(
    ("side", "local", "shape"),
    [
        (64, None, (64, 64)),
        (224, None, (224, 224)),
        (448, None, (300, 500)),
        (224, 448, (400, 230)),
        (64, 160, (97, 333)),
    ],
)
def test_a_resnet(tmp_path, side, local, shape):
    vision = {**RESNET["vision_cfg"], "image_size": side, "layers": [2, 1, 1, 1]}
    folder = write_tiny_clip(tmp_path, {**RESNET, "vision_cfg": vision})
    clip = shaken(load_backbone(BackboneConfig(model=str(folder), local_image_size_px=local)))
    plain = PlainClip(clip.model.state_dict())
    images = torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8)
    found = clip.encode_images(images)
    whole, own_local, pooled = plain.image(clip.preprocess(images))
    if local is not None:
        own_local = plain.image(clip.preprocess(images, local))[1]
    expected = dict(global_features=whole, local_features=own_local, pooled_features=pooled)
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name), values, atol=1e-5, rtol=0)
    assert found.local_features.shape[1] == ((local or side) // 32) ** 2


@pytest.mark.parametrize("dense", ["last", "value"])
def test_a_vit(tmp_path, dense):
    """The value path of the last block: each token's own value in place of what it looks at."""
    folder = write_tiny_clip(tmp_path, VIT)
    clip = shaken(load_backbone(BackboneConfig(model=str(folder), dense_features=dense)))
    w = {name: value.detach() for name, value in clip.model.visual.state_dict().items()}
    images = torch.randint(0, 256, (2, 40, 50, 3), dtype=torch.uint8)
    found = clip.encode_images(images)

    def norm(name, x):
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    patches = functional.conv2d(clip.preprocess(images), w["conv1.weight"], stride=8)
    patches = patches.flatten(2).transpose(1, 2)
    start = w["class_embedding"].expand(2, 1, -1)
    x = norm("ln_pre", torch.cat([start, patches], dim=1) + w["positional_embedding"])
    outputs = {}
    for block in range(2):
        name = f"transformer.resblocks.{block}"
        weight, bias = w[f"{name}.attn.in_proj_weight"], w[f"{name}.attn.in_proj_bias"]
        q, k, v = (norm(f"{name}.ln_1", x) @ weight.T + bias).chunk(3, dim=-1)
        heads = [part.unflatten(-1, (2, 16)).transpose(1, 2) for part in (q, k, v)]
        weights = (heads[0] @ heads[1].mT / 4).softmax(dim=-1)
        seen = (weights @ heads[2]).transpose(1, 2).flatten(2)
        for kind, mixed in (("last", seen), ("value", v)):
            out = mixed @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
            y = x + out
            hidden = norm(f"{name}.ln_2", y) @ w[f"{name}.mlp.c_fc.weight"].T
            hidden = functional.gelu(hidden + w[f"{name}.mlp.c_fc.bias"])
            outputs[kind] = y + hidden @ w[f"{name}.mlp.c_proj.weight"].T
            outputs[kind] = outputs[kind] + w[f"{name}.mlp.c_proj.bias"]
        x = outputs["last"]
    ends = {kind: norm("ln_post", y) @ w["proj"] for kind, y in outputs.items()}
    whole = functional.normalize(ends["last"][:, 0], dim=-1)
    local = functional.normalize(ends[dense][:, 1:], dim=-1)
    for name, values in (("global", whole), ("pooled", whole), ("local", local)):
        torch.testing.assert_close(getattr(found, f"{name}_features"), values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quick", [False, True])
def test_texts(tmp_path, quick):
    folder = write_tiny_clip(tmp_path, {**RESNET, "quick_gelu": quick})
    clip = shaken(load_backbone(BackboneConfig(model=str(folder))))
    plain = PlainClip(clip.model.state_dict(), quick_gelu=quick)
    found, tokens = clip.encode_texts(TEXTS), clip.tokenize(TEXTS)
    expected = plain.text(plain.words(tokens))
    end = tokens.argmax(dim=-1)
    torch.testing.assert_close(
        found.global_features, expected[torch.arange(2), end], atol=1e-5, rtol=0
    )
    for row, last in enumerate(end.tolist()):
        mine = found.local_features[row, : last + 1]
        torch.testing.assert_close(mine, expected[row, : last + 1], atol=1e-5, rtol=0)
