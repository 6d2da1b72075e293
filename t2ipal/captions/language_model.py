"""Captions by any causal language model of transformers: the border to these models.

Reads safetensors only and runs no code that comes with a model. Knows nothing of which texts are
taken.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from t2ipal.captions.tasks import Task
from t2ipal.config import Bounds, PositiveFloat, PositiveInt, check_fields

MAX_REASON = 300
"""Letters of a library's report that reach a message."""
INSTRUCTION = (
    "Write the caption of a photograph that shows: {}. One plain English sentence of 8 to 20 words,"
    " such as people write who describe what they see. Name each of these things by a common noun,"
    " with a number or a place where it fits, and no other thing that matters. Answer with the"
    " sentence alone."
)
EXAMPLES = (
    ("fire hydrant", "A yellow fire hydrant stands at the corner of an empty street."),
    ("pizza, fork", "A pizza on a white plate with a fork lying at its side."),
    ("kite, person", "Two people fly a large red kite over a windy hill."),
    ("elephant", "A pair of elephants walk slowly through the dry grass."),
    ("laptop, cup, cat", "A gray cat sleeps between a laptop and a cup of coffee."),
)
"""For a model that has not learned to follow an instruction: it goes on in their way."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a language model writes."""

    temperature: PositiveFloat = 1.0
    """Of its probabilities; lower: likelier words, and more texts alike."""
    top_p: Annotated[float, Bounds(gt=0, le=1)] = 0.95
    """Share of the probability whose words may come, the likeliest first."""
    max_new_tokens: PositiveInt = 60
    """Of a text at most."""
    batch_size: PositiveInt = 16
    """Texts that are written at once; less where the device's memory is short."""

    def __post_init__(self) -> None:
        check_fields(self)


class LanguageModelWriter:
    """Writes by sampling; each text has a random source of its own, whatever is beside it."""

    def __init__(
        self, model: str, prompt_names: Sequence[str], sampling: SamplingConfig, device: str = "cpu"
    ):
        """Loads the model.

        Args:
            model: its name on the hub, or a folder.
            prompt_names: what to call each class.
            sampling: how it writes.
            device: any torch device.

        Raises:
            FileNotFoundError: there is no such model, or none in safetensors.
        """
        import torch

        from t2ipal.devices import Halving, computes_bf16

        self._names, self._sampling, self._device = prompt_names, sampling, device
        self._halves = Halving()
        dtype = torch.bfloat16 if computes_bf16(device) else torch.float32
        self._tokenizer, self._model = _load(model, dtype)
        self._model.to(device).eval()
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self._ends = self._ending_tokens()

    def __call__(self, tasks: Sequence[Task]) -> list[str]:
        """A text for each task."""
        size, what = self._sampling.batch_size, "a caption of the language model"
        texts: list[str] = []
        for start in range(0, len(tasks), size):
            batch = tasks[start : start + size]
            for part in self._halves(lambda rows, b=batch: self._write(b[rows]), len(batch), what):
                texts += part
        return texts

    def prompt(self, task: Task) -> str:
        """What the model reads: an instruction where it follows such, else examples."""
        things = ", ".join(self._names[index] for index in task.classes)
        if self._tokenizer.chat_template:
            messages = [{"role": "user", "content": INSTRUCTION.format(things)}]
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        shown = [f"Things: {names}\nCaption: {caption}\n\n" for names, caption in EXAMPLES]
        return f"{''.join(shown)}Things: {things}\nCaption:"

    def _write(self, tasks: Sequence[Task]) -> list[str]:
        import torch
        from transformers import LogitsProcessorList

        # A template has written the special tokens already.
        special = not self._tokenizer.chat_template
        given = self._tokenizer(
            [self.prompt(task) for task in tasks],
            padding=True, add_special_tokens=special, return_tensors="pt",
            return_token_type_ids=False,
        ).to(self._device)  # fmt: skip
        draw = _Draw([task.seed for task in tasks], self._sampling)
        with torch.inference_mode():
            tokens = self._model.generate(
                **given,
                max_new_tokens=self._sampling.max_new_tokens,
                do_sample=False,  # `draw` has left one token alone
                num_beams=1,
                logits_processor=LogitsProcessorList([draw]),
                pad_token_id=self._tokenizer.pad_token_id,
                eos_token_id=self._ends or None,
            )
        new = tokens[:, given["input_ids"].shape[1] :]
        return [
            plain_caption(t) for t in self._tokenizer.batch_decode(new, skip_special_tokens=True)
        ]

    def _ending_tokens(self) -> list[int]:
        """Tokens behind which nothing is read."""
        own = self._model.generation_config.eos_token_id
        ends = own if isinstance(own, list) else [own]
        ends.append(self._tokenizer.eos_token_id)
        if not self._tokenizer.chat_template:
            line = self._tokenizer.encode("\n", add_special_tokens=False)
            ends += line if len(line) == 1 else []
        return sorted({end for end in ends if end is not None})


class _Draw:
    """Leaves one next token for each text, drawn from its likeliest ones by its own source."""

    def __init__(self, seeds: Sequence[int], sampling: SamplingConfig):
        import torch

        self._sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._sampling = sampling

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [texts, tokens] that are -inf but for one token each."""
        import torch

        likely = torch.softmax(scores.float() / self._sampling.temperature, dim=-1)
        probs, order = likely.sort(dim=-1, descending=True, stable=True)
        up_to = probs.cumsum(dim=-1)
        mass = torch.where(up_to - probs < self._sampling.top_p, probs, 0).sum(-1, keepdim=True)
        draws = torch.stack([torch.rand(1, generator=source) for source in self._sources])
        at = (up_to <= draws.to(mass) * mass).sum(dim=-1, keepdim=True)
        chosen = order.gather(-1, at.clamp(max=order.shape[-1] - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0)


def plain_caption(text: str) -> str:
    """The sentence of an answer: without thoughts, a heading, or quotation marks around it."""
    text = re.sub(r"<think>.*?(</think>|$)", "", text, flags=re.DOTALL)
    for line in text.splitlines():
        plain = re.sub(r"^\W*(here is .*:|here's .*:|caption\s*:)", "", line, flags=re.I)
        if plain := plain.strip("\"'\u201c\u201d*` "):
            return plain
    return ""


def check_language_model(model: str) -> None:
    """Refuses, before anything starts, what is no causal language model; loads no weights.

    Raises:
        FileNotFoundError: there is no such model, or it is of another kind.
    """
    with _loading(model) as source:
        from transformers import AutoConfig, AutoModelForCausalLM

        kind = type(AutoConfig.from_pretrained(source, trust_remote_code=False))
        if kind not in AutoModelForCausalLM._model_mapping:
            raise ValueError(f"It is a model of another kind ({kind.model_type}).")


def _load(model: str, dtype: Any) -> tuple[Any, Any]:
    """Tokenizer and model."""
    with _loading(model) as source:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        weights = AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    return tokenizer, weights


@contextmanager
def _loading(model: str) -> Iterator[str]:
    """Gives what to load; says in one line what is wrong with it."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    folder = Path(model).expanduser()
    try:
        yield str(folder) if folder.is_dir() else model
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        shown, hint = " ".join(str(error).split())[:MAX_REASON], ""
        if any(folder.glob("*.bin")):
            hint = " A .bin file may run code when it is read: convert it to safetensors."
        raise FileNotFoundError(
            f"The writer {model!r} must be 'grammar' or a causal language model of transformers in "
            f"safetensors, by its name on the hub or its folder: {shown}{hint}"
        ) from error
