"""Guidance in some steps only, and by the classes that a caption names."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def interval(num_steps: int, first: float, end: float) -> range:
    """The steps within two shares of all, one at least."""
    start = min(round(first * num_steps), num_steps - 1)
    return range(start, max(start + 1, round(end * num_steps)))


def guide_steps(
    pipeline: Any, steps: range, num_steps: int, scale: float, empty: dict[str, Any]
) -> dict[str, Any]:
    """The arguments with which a diffusers pipeline guides these steps; the others cost half.

    In each step it asks for its scale, and runs the captions alone where that is 1.

    Args:
        pipeline: that will be called.
        steps: to be guided.
        num_steps: of all; a sampler that takes some more (PNDM one) is guided in these as in the
            last.
        scale: of guidance.
        empty: the empty caption's states and, for SDXL, its pooled ones, when it is called.
    """
    # The loop's own tensors; the last two are SDXL's, whose image sizes are the same for both.
    names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    names = [name for name in names if name in pipeline._callback_tensor_inputs]

    def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        others = dict(zip(names, empty.values()))  # known since the captions were encoded
        if step + 1 == steps.start:
            pipeline._guidance_scale = scale
            return {
                name: torch.cat([others.get(name, tensor).expand_as(tensor), tensor])
                for name, tensor in tensors.items()
            }
        if step + 1 == steps.stop < num_steps:
            pipeline._guidance_scale = 1.0
            # The first half of each belongs to the empty caption.
            return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}
        return {}

    return {
        "guidance_scale": 1.0 if steps.start else scale,
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": names,
    }


class Conjunction:
    """Adds w sum_i (eps_i - eps_0) to the caption's own prediction, i over the image's classes.

    The pipeline then guides with s (eps_caption - eps_0) + s w sum_i (eps_i - eps_0). Hooks of the
    UNet do it, so that the pipeline itself stays what it is; unguided steps are left alone.
    """

    def __init__(self, unet: nn.Module, weight: float):
        """Hooks into the UNet.

        Args:
            unet: called with the empty captions' half of the batch before the captions' half.
            weight: w.
        """
        self.weight = weight
        unet.register_forward_pre_hook(self._widen, with_kwargs=True)
        unet.register_forward_hook(self._add)

    def prepare(
        self,
        embeddings: Float[Tensor, "parts tokens width"],
        pooled: Float[Tensor, "parts pooled"] | None,
        image: Int[Tensor, " parts"],
        num_images: int,
    ) -> None:
        """Takes the classes of the images that are made next.

        Args:
            embeddings: hidden states of each class's prompt.
            pooled: the second text input that Stable Diffusion XL has; else None.
            image: row of the image that each class belongs to.
            num_images: of the batch.
        """
        self._embeddings, self._pooled, self._image = embeddings, pooled, image
        self._num_images, self._states = num_images, None
        # A matrix product adds up in a fixed order; scattering on a GPU does not.
        self._of_image = image[None] == torch.arange(num_images, device=image.device)[:, None]

    def _widen(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Puts the classes' rows behind those of the guided batch."""
        sample, *rest = args
        self._guided = len(sample) == 2 * self._num_images and len(self._image) > 0
        if not self._guided:
            return None
        states = kwargs["encoder_hidden_states"]
        if states is not self._states:  # one tensor for all steps, which caches know again
            self._states = states
            self._joined = torch.cat([states, self._embeddings.to(states)])
        changed: dict[str, Any] = {"encoder_hidden_states": self._joined}
        added = kwargs.get("added_cond_kwargs")
        if added:
            texts, times = added["text_embeds"], added["time_ids"]
            assert self._pooled is not None
            changed["added_cond_kwargs"] = {
                "text_embeds": torch.cat([texts, self._pooled.to(texts)]),
                "time_ids": torch.cat([times, times[self._image]]),
            }
        return (torch.cat([sample, sample[self._image]]), *rest), {**kwargs, **changed}

    def _add(self, unet: nn.Module, args: Any, output: tuple[Tensor, ...]) -> Any:
        """Takes the classes' rows off again and adds what they say."""
        if not self._guided:
            return None
        count = self._num_images
        empty, caption, parts = output[0].split([count, count, len(self._image)])
        differences = (parts - empty[self._image]).flatten(1)
        told = self._of_image.to(differences) @ differences
        return (torch.cat([empty, caption + self.weight * told.view_as(caption)]), *output[1:])
