"""A CLIP with a ResNet, written out plainly from its paper: the slow reference of `features`.

Works on the weights by name, image by image where that is plainer, and knows nothing of open_clip.
"""

import torch
from torch.nn import functional


class PlainClip:
    """Args: the weights by name, heads of the text tower, and whether its GELU is the quick one."""

    def __init__(self, weights, text_heads=2, quick_gelu=False):
        self.w = {name: value.detach() for name, value in weights.items()}
        self.text_heads, self.quick_gelu = text_heads, quick_gelu

    def image(self, pixels):
        """Global feature, local features and CLIP's own feature, each normalized."""
        grid = self._resnet(pixels)
        rows = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([rows.mean(dim=1, keepdim=True), rows], dim=1)
        value = self._linear("visual.attnpool.v_proj", rows)
        local = self._linear("visual.attnpool.c_proj", value)
        whole = self._attention_pool(tokens)
        positions = self.w["visual.attnpool.positional_embedding"]
        own = (
            self._attention_pool(tokens + positions) if len(positions) == tokens.shape[1] else None
        )
        unit = functional.normalize
        return unit(whole, dim=-1), unit(local, dim=-1), None if own is None else unit(own, dim=-1)

    def _resnet(self, x):
        for number, stride in ((1, 2), (2, 1), (3, 1)):
            x = self._conv(f"visual.conv{number}", x, stride, 1)
            x = self._norm(f"visual.bn{number}", x).clamp(min=0)
        x = functional.avg_pool2d(x, 2)
        for layer in range(1, 5):
            block = 0
            while f"visual.layer{layer}.{block}.conv1.weight" in self.w:
                stride = 2 if layer > 1 and block == 0 else 1
                x = self._bottleneck(f"visual.layer{layer}.{block}", x, stride)
                block += 1
        return x

    def _bottleneck(self, name, x, stride):
        out = self._norm(f"{name}.bn1", self._conv(f"{name}.conv1", x)).clamp(min=0)
        out = self._norm(f"{name}.bn2", self._conv(f"{name}.conv2", out, 1, 1)).clamp(min=0)
        out = functional.avg_pool2d(out, stride) if stride > 1 else out
        out = self._norm(f"{name}.bn3", self._conv(f"{name}.conv3", out))
        if f"{name}.downsample.0.weight" in self.w:
            x = functional.avg_pool2d(x, stride) if stride > 1 else x
            x = self._norm(f"{name}.downsample.1", self._conv(f"{name}.downsample.0", x))
        return (out + x).clamp(min=0)

    def _attention_pool(self, tokens):
        """The mean token asks, all tokens answer; heads of 64 channels."""
        parts = [self._linear(f"visual.attnpool.{n}_proj", tokens) for n in "qkv"]
        channels = tokens.shape[-1]
        heads = max(channels // 64, 1)
        outputs = []
        for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in parts)):
            weights = (q[:, :1] @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
            outputs.append((weights @ v)[:, 0])
        return self._linear("visual.attnpool.c_proj", torch.cat(outputs, dim=-1))

    def text(self, embeddings):
        """Normalized output at every position of texts given as token embeddings."""
        length = embeddings.shape[1]
        x = embeddings + self.w["positional_embedding"][:length]
        allowed = torch.ones(length, length).tril() > 0
        block = 0
        while f"transformer.resblocks.{block}.ln_1.weight" in self.w:
            name = f"transformer.resblocks.{block}"
            x = x + self._attention(f"{name}.attn", self._layer_norm(f"{name}.ln_1", x), allowed)
            hidden = self._linear(f"{name}.mlp.c_fc", self._layer_norm(f"{name}.ln_2", x))
            if self.quick_gelu:
                hidden = hidden / (1 + torch.exp(-1.702 * hidden))
            else:
                hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            x = x + self._linear(f"{name}.mlp.c_proj", hidden)
            block += 1
        x = self._layer_norm("ln_final", x) @ self.w["text_projection"]
        return x / x.norm(dim=-1, keepdim=True)

    def words(self, tokens):
        """Token embeddings."""
        return self.w["token_embedding.weight"][tokens]

    def _attention(self, name, x, allowed):
        weight, bias = self.w[f"{name}.in_proj_weight"], self.w[f"{name}.in_proj_bias"]
        parts = (x @ weight.T + bias).chunk(3, dim=-1)
        outputs = []
        for q, k, v in zip(*(part.chunk(self.text_heads, dim=-1) for part in parts)):
            logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf"))
            outputs.append(logits.softmax(dim=-1) @ v)
        return self._linear(f"{name}.out_proj", torch.cat(outputs, dim=-1))

    def _conv(self, name, x, stride=1, padding=0):
        return functional.conv2d(x, self.w[f"{name}.weight"], stride=stride, padding=padding)

    def _norm(self, name, x):
        mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        scale = self.w[f"{name}.weight"] / (var + 1e-5).sqrt()
        shift = self.w[f"{name}.bias"] - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def _linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def _layer_norm(self, name, x):
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
