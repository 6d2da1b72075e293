import hashlib
import io
import re
import zipfile

import pytest
import torch
from torch import nn

from t2ipal.features import openai_weights as reading
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.openai_weights import MARKS, openai_weights

TEXTS = ["a dog", "two cats on a sofa"]
TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture
def clip(monkeypatch):
    """A CLIP with QuickGELU; open_clip knows its architecture by the plain name `tiny`."""
    load_backbone(BackboneConfig())  # repairs torchvision
    import open_clip
    from open_clip import factory
    from open_clip.model import CLIP

    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-quickgelu", {**TINY, "quick_gelu": True})
    assert "tiny" in open_clip.list_models()
    monkeypatch.setattr(reading, "_digest", lambda path: "")  # that of no address
    torch.manual_seed(0)
    model = CLIP(**TINY, quick_gelu=True)
    halves = {name: value.half().float() for name, value in model.state_dict().items()}
    model.load_state_dict(halves)
    return model.eval()


def as_openai(model) -> dict[str, torch.Tensor]:
    """Halves where OpenAI's are halves, and its three numbers."""
    state = {
        name: value.half() if value.dim() > 1 and "embedding" not in name else value
        for name, value in model.state_dict().items()
    }
    return {**state, **{mark: torch.tensor(64 + i) for i, mark in enumerate(MARKS)}}


class Named(nn.Module):
    """Weights under dotted names, in modules of modules: what TorchScript archives."""

    def __init__(self, state):
        super().__init__()
        heads = dict.fromkeys(name.partition(".")[0] for name in state)
        for head in heads:
            inner = {
                n.partition(".")[2]: v for n, v in state.items() if n.partition(".")[0] == head
            }
            if "" in inner:
                self.register_buffer(head, inner[""])
            else:
                self.add_module(head, Named(inner))

    def forward(self, x):
        return x


def saved(path, state, kind):
    if kind == "archive":
        torch.jit.save(torch.jit.trace(Named(state), torch.zeros(1)), path)
    elif kind == "nested":
        content = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(content, path)
    else:
        torch.save(state, path)
    return path


def features(path, model="tiny"):
    backbone = load_backbone(BackboneConfig(model=model, pretrained=str(path)))
    return backbone, backbone.encode_texts(TEXTS).global_features


def exact(clip):
    import open_clip

    tokens = open_clip.get_tokenizer("RN50")(TEXTS)
    with torch.no_grad():
        return nn.functional.normalize(clip.encode_text(tokens), dim=-1)


@pytest.mark.parametrize("kind", ["archive", "dict", "nested"])
@pytest.mark.parametrize("model", ["tiny", "tiny-quickgelu"])
def test_openais_weights_get_quick_gelu(clip, tmp_path, kind, model):
    backbone, found = features(saved(tmp_path / "RN50.pt", as_openai(clip), kind), model)
    torch.testing.assert_close(found, exact(clip), atol=1e-6, rtol=0)
    assert type(backbone.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert backbone.image_size_px == 64 and backbone.identity.mean[0] == pytest.approx(0.48145466)
    assert {value.dtype for value in backbone.model.parameters()} == {torch.float32}


def test_other_weights_are_of_the_activation_that_the_name_says(clip, tmp_path):
    noisy = {
        name: value + 1e-5 * torch.randn_like(value) if value.is_floating_point() else value
        for name, value in clip.state_dict().items()
    }
    path = saved(tmp_path / "own.pt", noisy, "dict")
    for model, activation in (("tiny", "GELU"), ("tiny-quickgelu", "QuickGELU")):
        backbone, _ = features(path, model)
        assert type(backbone.model.transformer.resblocks[0].mlp.gelu).__name__ == activation


@pytest.mark.parametrize("stored", ["half", "float"])
def test_halves_without_marks_are_refused(clip, tmp_path, stored):
    state = {name: value for name, value in as_openai(clip).items() if name not in MARKS}
    if stored == "float":
        state = {name: value.float() for name, value in state.items()}
    path = saved(tmp_path / "RN50.pt", state, "dict")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} holds halves.*tiny-quickgelu"):
        features(path)
    _, found = features(path, "tiny-quickgelu")
    torch.testing.assert_close(found, exact(clip), atol=1e-6, rtol=0)


def test_weights_that_do_not_fit(clip, tmp_path):
    state = as_openai(clip)
    state.pop("ln_final.weight")
    with pytest.raises(ValueError, match="must be whole and fit its configuration"):
        features(saved(tmp_path / "RN50.pt", state, "archive"))


def test_an_archive_is_a_program_and_must_be_openais(clip, tmp_path, monkeypatch):
    import open_clip

    path = saved(tmp_path / "RN50.pt", as_openai(clip), "archive")
    monkeypatch.undo()
    address = open_clip.get_pretrained_cfg("RN50", "openai")["url"]
    assert re.search("/[0-9a-f]{64}/", address)
    for each in (address, ""):
        with pytest.raises(ValueError, match=r"RN50\.pt is a TorchScript archive, whose code runs"):
            openai_weights(path, "RN50", each)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert openai_weights(path, "RN50", f"https://openai.example/{digest}/RN50.pt") is not None


def test_what_is_no_file_of_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_digest", lambda path: "")  # that of no address
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a/constants.pkl", "nonsense")
    for content in (b"", b"nonsense", archive.getvalue()):
        (tmp_path / "file.pt").write_bytes(content)
        assert openai_weights(tmp_path / "file.pt", "RN50", "") is None
    torch.save([1, 2], tmp_path / "list.pt")
    assert openai_weights(tmp_path / "list.pt", "RN50", "") is None
