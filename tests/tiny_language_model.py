"""A language model of a few thousand random weights and a tokenizer of bytes."""

from pathlib import Path

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tiny_language_model(folder: Path, chat: bool = False) -> Path:
    """A GPT-2 in safetensors; with `chat`, one whose tokenizer has a template."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate([*letters, "<end>"])}, merges=[])
    )
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>")
    if chat:
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(letters) + 1, n_positions=1024, n_embd=8, n_layer=1, n_head=2,
        bos_token_id=len(letters), eos_token_id=len(letters),
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
