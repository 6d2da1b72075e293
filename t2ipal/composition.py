"""Compositional guidance: each class that a caption names guides its image beside the caption.

The conjunction of Composable Diffusion (Liu et al., 2022, eq. 11), for any UNet of diffusers.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
