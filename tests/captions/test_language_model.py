import json
import shutil
from collections import Counter

import pytest
import torch
from tiny_language_model import write_tiny_language_model

from t2ipal.captions import Vocabulary
from t2ipal.captions.language_model import (
    LanguageModelWriter,
    SamplingConfig,
    _Draw,
    check_language_model,
    plain_caption,
)
from t2ipal.captions.tasks import WritingConfig, make_task
from t2ipal.captions.writing import Tries, collect

PETS = Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), ((), ()))
FEW = SamplingConfig(max_new_tokens=6, batch_size=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_language_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def write(model):
    return LanguageModelWriter(str(model), PETS.prompt_names, FEW)


def tasks(count, attempt=0):
    return [make_task(number, attempt, (number % 2,), seed=0) for number in range(count)]


def test_a_text_is_the_same_alone_and_beside_others(write):
    some = tasks(4)
    together = write(some)
    assert len({*together}) == 4
    assert [write([task])[0] for task in some] == together
    assert write(some[::-1]) == together[::-1]
    assert write(tasks(4, attempt=1)) != together


def test_nonsense_is_refused_with_reasons(write):
    config = WritingConfig(max_tries=2)
    tries = Tries(write, PETS, config)
    written = collect(PETS, 5, config, lambda some: iter(tries(some)))
    assert not written.taken and len(written.refused) == 10 and written.num_missing == 5
    assert {*written.reasons()} <= {"no class named", "empty", "control character"}
    remark = written.remark(PETS)
    assert remark.startswith("5 of 5 captions are missing, most of them of ")
    assert "no text was good enough (" in remark


def test_prompts(write, tmp_path):
    both = make_task(0, 0, (1, 0), seed=0)
    assert write.prompt(both).endswith("\n\nThings: cat, dog\nCaption:")
    chat = LanguageModelWriter(
        str(write_tiny_language_model(tmp_path, chat=True)), PETS.prompt_names, FEW
    )
    assert chat.prompt(both).startswith("<user>Write the caption of a photograph that shows: cat,")
    assert chat.prompt(both).endswith("\n<assistant>")
    assert len(chat([both])) == 1


def test_draws_follow_the_probabilities():
    """Tokens of 1/2, 1/4, 1/8, 1/8; with top_p 0.7 only the first two, at 2 to 1."""
    probs = torch.tensor([0.125, 0.5, 0.125, 0.25])
    for top_p, expected in ((1.0, probs), (0.7, torch.tensor([0, 2 / 3, 0, 1 / 3]))):
        draw = _Draw(range(4000), SamplingConfig(top_p=top_p))
        scores = draw(None, probs.log().expand(4000, 4))
        assert (scores.isfinite().sum(dim=1) == 1).all()
        counts = Counter(scores.argmax(dim=1).tolist())
        shares = torch.tensor([counts[token] / 4000 for token in range(4)])
        assert torch.allclose(shares, expected.float(), atol=0.03)
    # At temperature 1/2 probabilities are squared: 16, 4, 1, 1 of 22.
    draw = _Draw(range(4000), SamplingConfig(temperature=0.5, top_p=1.0))
    chosen = draw(None, probs.log().expand(4000, 4)).argmax(dim=1)
    assert (chosen == 1).float().mean().item() == pytest.approx(16 / 22, abs=0.03)


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (" A dog runs.\n\nThings: cat", "A dog runs."),
        ("<think>\nA dog, so\n</think>\n\nA dog runs.", "A dog runs."),
        ('Here is a caption:\n"A dog runs."', "A dog runs."),
        ("**Caption:** A dog runs.", "A dog runs."),
        ("<think> for ever", ""),
        ("", ""),
    ],
)
def test_plain_caption(answer, caption):
    assert plain_caption(answer) == caption


def test_what_cannot_be_loaded(model, tmp_path):
    check_language_model(str(model))
    message = r"The writer '.*nowhere' must be 'grammar' or a causal language model"
    with pytest.raises(FileNotFoundError, match=message):
        check_language_model(str(tmp_path / "nowhere"))
    shutil.copytree(model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(FileNotFoundError, match="A .bin file may run code when it is read"):
        LanguageModelWriter(str(tmp_path / "model"), PETS.prompt_names, FEW)
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(FileNotFoundError, match=r"a model of another kind \(vit\)"):
        check_language_model(str(tmp_path / "model"))
