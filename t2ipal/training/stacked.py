"""Trials of one method trained at once: stacked into one module over the same batches.

What trials have learned gets a dimension of trials in front, and so do the numbers in which they
differ; `torch.func.vmap` turns the method's own loss into that of all. What does not depend on a
trial is computed once: the features' products, the frozen text tower's weights are read for all.
On a CPU that saves the overhead of many small operations, on a GPU most of the launches.

Owns the stack, its optimizer and its scores; knows no method. A trial comes out as `fit` alone
gives it, but for rounding.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from t2ipal.config import require, to_dict
from t2ipal.devices import is_out_of_memory
from t2ipal.features.ahead import ahead
from t2ipal.features.prompt_tower import all_kept
from t2ipal.features.sets import FeatureSet, FeatureTable, TrainingFeatures
from t2ipal.methods.contract import Method
from t2ipal.methods.recognizer import Recognizer, detached, scorer_tensors
from t2ipal.training.loop import (
    TrainingConfig,
    autocast,
    choose_images,
    cosine,
    data_seed,
    epoch_generator,
    usable_images,
    whole_batches,
)
from t2ipal.training.recipes import Recipe

KEPT_BYTES = 4 * 2**30
"""Of activations at once, on a GPU half of its free memory; trials that need more are trained some
at a time."""
SCORED_VALUES = 2**26
"""Locations x classes x trials whose similarities are in memory at once, 256 MB."""
OWN = (
    "lr", "prototype_lr", "warmup_lr", "momentum", "weight_decay", "images_per_caption", "seed",
    "data_seed",
)  # fmt: skip
"""Of the training config: what each trial of a stack has for itself. They share the order of the
data."""


def stack_key(recipe: Recipe) -> tuple[Any, ...]:
    """Equal for recipes whose trials can be stacked.

    Raises:
        ValueError: the method is not one of those that can.
    """
    method, training = to_dict(recipe.method), to_dict(recipe.training)
    require(
        hasattr(recipe.method, "numbers") and recipe.training.num_epochs > 0,
        f"A search trains: method {recipe.method.method} with num_epochs "
        f"{recipe.training.num_epochs} has nothing to train.",
    )
    require(
        recipe.training.optimizer == "sgd",
        f"Trials are stacked with optimizer sgd, got {recipe.training.optimizer}.",
    )
    for name in recipe.method.numbers()._fields:  # type: ignore
        method.pop(name, None)
    for name in OWN:
        if name != "images_per_caption" or not getattr(recipe.method, "reads_images", False):
            training.pop(name, None)
    return str(method), str(training), data_seed(recipe.training)


class Stack:
    """Trials with one `stack_key`, as they are after the epochs done so far.

    Args:
        methods: as built, one for each trial; the first one serves as the template of all, and the
            others are not kept.
        trainings: of each.
        data: all captions and images.
        at_once: trials whose activations are kept at once; None: as many as `KEPT_BYTES` hold,
            measured on the first batch. Half as many whenever the memory is too short.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        trainings: Sequence[TrainingConfig],
        data: TrainingFeatures,
        at_once: int | None = None,
    ) -> None:
        self.trainings, self.data, self.at_once = [*trainings], data, at_once
        self.epoch = 0
        # A batch's images are drawn for each number of images a caption; larger sets hold smaller.
        sizes = {training.images_per_caption: training for training in trainings}
        self._images_of = [usable_images(data, training) for training in sizes.values()]
        self._size_of = torch.tensor([[*sizes].index(t.images_per_caption) for t in trainings])
        for method, size in zip(methods, self._size_of.tolist()):
            if method is not methods[0] and getattr(method.config, "reads_images", False):
                method.prepare_like(methods[0])  # type: ignore
            else:
                rows = self._images_of[size]
                method.prepare(dataclasses.replace(data, image_of_caption=rows))
        self.template: Any = methods[0]
        self._configs = [method.config for method in methods]
        for name in ("uses_images", "uses_texts"):
            setattr(self.template, name, any(getattr(method, name) for method in methods))
        self._module = _Call(self.template)
        named = [dict(_Call(method).named_parameters()) for method in methods]
        self._params = {
            name: torch.stack([each[name].detach() for each in named]) for name in named[0]
        }
        self._momenta = {name: torch.zeros_like(values) for name, values in self._params.items()}

        def column(numbers: Sequence[float]) -> Float[Tensor, " trials"]:
            return torch.tensor(numbers, dtype=torch.get_default_dtype(), device=self.device)

        numbers = [method.config.numbers() for method in methods]
        self._numbers: Any = type(numbers[0])(*map(column, zip(*numbers)))
        peaks = [_peaks(*each) for each in zip(methods, trainings)]
        self._peaks = {name: column([each[name] for each in peaks]) for name in peaks[0]}
        rates = ("warmup_lr", "momentum", "weight_decay")
        self._rates = {name: column([getattr(t, name) for t in trainings]) for name in rates}

    def __len__(self) -> int:
        return len(self.trainings)

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(iter(self._params.values())).device

    @property
    def num_epochs(self) -> int:
        """That it is trained."""
        return self.trainings[0].num_epochs

    def train_epoch(self) -> Float[Tensor, " trials"]:
        """One pass over all captions; every trial's mean loss."""
        sums, steps = torch.zeros(len(self), device=self.device), 0
        for batch in self._batches():
            if self.at_once is None:
                self.at_once = self._trials_at_once(batch)
            start = 0
            while start < len(self):
                part = slice(start, min(start + self.at_once, len(self)))
                try:
                    losses, gradients = self._gradients(batch, part)
                except RuntimeError as error:
                    if self.at_once == 1 or not is_out_of_memory(error):
                        raise
                    self.at_once //= 2  # nothing was changed yet: the same trials again, fewer
                    continue
                self._descend(gradients, part)
                sums[part] += losses
                start = part.stop
            steps += 1
        self.epoch += 1
        return (sums / steps).cpu()

    def train(self) -> None:
        """All epochs that are left."""
        while self.epoch < self.num_epochs:
            self.train_epoch()

    @torch.no_grad()
    def scores(self, images: FeatureTable) -> Iterator[Float[Tensor, "images classes"]]:
        """What every trial's recognizer gives, one after the other; some are computed at once."""
        locations = images.rows(slice(0, 1)).local_features.shape[1]
        for part in self._parts():
            params = {name: values[part] for name, values in self._params.items()}
            numbers = _rows(self._numbers, part)

            def constants(params: dict[str, Tensor], numbers: Any) -> dict[str, Tensor]:
                return scorer_tensors(functional_call(self._module, params, ("scorer", numbers)))

            with self._vectorized():
                made = vmap(constants)(params, numbers)
            scorer = self.template.scorer()
            values = (part.stop - part.start) * locations * images.labels.shape[1]
            blocks = torch.arange(len(images)).split(max(SCORED_VALUES // values, 1))
            found = [
                vmap(partial(_scores, scorer, block))(made, numbers).float().cpu()
                for block in ahead(lambda rows: images.rows(rows, self.device), blocks)
            ]
            yield from torch.cat(found, dim=1)

    @torch.no_grad()
    def recognizer(self, trial: int) -> Recognizer:
        """Of one trial, as the method alone exports it."""
        params = {name: values[trial] for name, values in self._params.items()}
        call = "scorer", _rows(self._numbers, trial)
        scorer = detached(functional_call(self._module, params, call))
        own = dataclasses.replace(scorer, config=self._configs[trial], stacked=None)
        return Recognizer(own, self.template.export().backbone)

    def keep(self, trials: Sequence[int]) -> None:
        """Lets all others leave the stack; these go on, in this order."""
        chosen = torch.tensor(trials, dtype=torch.long)
        here = chosen.to(self.device)
        self.trainings = [self.trainings[trial] for trial in trials]
        self._configs = [self._configs[trial] for trial in trials]
        for table in (self._params, self._momenta, self._peaks, self._rates):
            table.update({name: values[here] for name, values in table.items()})
        self._numbers = type(self._numbers)(*(values[here] for values in self._numbers))
        self._size_of = self._size_of[chosen]

    def _parts(self) -> Iterator[slice]:
        """Trials that are computed at once."""
        step = self.at_once or len(self)
        return (slice(at, min(at + step, len(self))) for at in range(0, len(self), step))

    def _batches(self) -> Iterator["_Batch"]:
        """As `t2ipal.training.batches` gives them to one trial, with the images of all trials."""
        config, template = self.trainings[0], self.template
        generator = epoch_generator(data_seed(config), self.epoch)
        order = torch.randperm(len(self.data.texts), generator=generator)
        used = sorted(set(self._size_of.tolist()))
        drawn = [choose_images(rows, generator.clone_state()) for rows in self._images_of]

        def gather(captions: Int[Tensor, " batch"]) -> _Batch:
            shown = [rows[rows >= 0] for rows in (drawn[size][captions] for size in used)]
            together = shown[0] if len(shown) == 1 else torch.unique(torch.cat(shown))
            weights, counts = None, torch.ones(len(drawn))
            for size, rows in zip(used, shown):
                counts[size] = max(len(rows), 1)
            if len(shown) > 1:
                weights = torch.zeros(len(drawn), len(together))
                for size, rows in zip(used, shown):
                    weights[size, torch.searchsorted(together, rows)] = 1
            images, texts = self.data.images, self.data.texts
            return _Batch(
                images.rows(together, self.device)
                if template.uses_images and images is not None
                else None,
                texts.rows(captions, self.device) if template.uses_texts else None,
                None if weights is None else weights.to(self.device),
                counts.to(self.device),
                len(captions),
            )

        order = order[: whole_batches(config, len(order))]
        return ahead(gather, order.split(config.batch_size))

    def _loss(self, batch: "_Batch", params: dict[str, Tensor], numbers: Any, size: Tensor) -> Any:
        """Of one trial; under `vmap`, of all that are computed at once."""
        weights = batch.image_weights
        options = {
            "num_images": batch.num_images.index_select(0, size.view(1)).squeeze(0),
            "num_texts": batch.num_texts,
            "image_weights": None if weights is None else weights.index_select(0, size.view(1))[0],
            "stacked": numbers,
        }
        call = ("loss", batch.images, batch.texts)
        return functional_call(self._module, params, call, options).total

    def _gradients(
        self, batch: "_Batch", part: slice
    ) -> tuple[Float[Tensor, " part"], dict[str, Tensor | None]]:
        params = {n: values[part].detach().requires_grad_() for n, values in self._params.items()}
        inputs = params, _rows(self._numbers, part), self._size_of[part].to(self.device)
        loss = partial(self._loss, batch)
        with autocast(self.trainings[0].precision, self.device):
            if part.stop - part.start == 1:  # alone it need not keep all activations
                losses = loss(*(tree_map(lambda values: values[0], each) for each in inputs))[None]
            else:
                with self._vectorized():
                    losses = vmap(loss)(*inputs)
        gradients = torch.autograd.grad(losses.sum(), [*params.values()], allow_unused=True)
        return losses.detach(), dict(zip(params, gradients))

    def _descend(self, gradients: dict[str, Tensor | None], part: slice) -> None:
        """One step of SGD as torch takes it, each trial with numbers of its own."""
        warm = self.epoch < self.trainings[0].warmup_epochs
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            values, momentum = self._params[name][part], self._momenta[name][part]

            def column(rates: Tensor, values: Tensor = values) -> Tensor:
                return rates[part].view(-1, *[1] * (values.dim() - 1))

            peak = self._peaks[name] * cosine(self.trainings[0], self.epoch)
            rate = self._rates["warmup_lr"] if warm else peak
            change = gradient.addcmul_(values, column(self._rates["weight_decay"]))
            momentum.mul_(column(self._rates["momentum"])).add_(change)
            values.sub_(momentum * column(rate))

    def _trials_at_once(self, batch: "_Batch") -> int:
        """As many as `KEPT_BYTES` hold of the activations that one keeps."""
        kept: dict[int, int] = {}

        def pack(values: Tensor) -> Tensor:
            storage = values.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return values

        params = {name: values[0].requires_grad_() for name, values in self._params.items()}
        inputs = params, _rows(self._numbers, 0), self._size_of[0].to(self.device)
        with (
            autocast(self.trainings[0].precision, self.device),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values),
            _all_kept(),
        ):
            self._loss(batch, *inputs)
        room = KEPT_BYTES
        if self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2
        return max(min(len(self), room // max(sum(kept.values()), 1)), 1)

    @contextlib.contextmanager
    def _vectorized(self) -> Iterator[None]:
        """What `vmap` needs: no operation without a rule of its own, and nothing computed twice."""
        # Of attention on CPUs only this form has such a rule.
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with _all_kept(), plain:
            yield


@dataclass(frozen=True)
class _Batch:
    images: FeatureSet | None
    """Of all trials; None where none are used."""
    texts: FeatureSet | None
    image_weights: Float[Tensor, "sizes images"] | None
    """1 where a trial with so many images a caption is given one; None where all have the same."""
    num_images: Float[Tensor, " sizes"]
    """That it is given, 1 where there are none."""
    num_texts: int


class _Call(nn.Module):
    """Any function of a method as a module's `forward`, which is what can be called purely."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self.method, name)(*arguments, **options)


@contextlib.contextmanager
def _all_kept() -> Iterator[None]:
    token = all_kept.set(True)
    try:
        yield
    finally:
        all_kept.reset(token)


def _scores(scorer: Any, images: FeatureSet, made: dict[str, Tensor], numbers: Any) -> Tensor:
    return dataclasses.replace(scorer, **made, stacked=numbers).scores(images)


def _rows(numbers: Any, part: slice | int) -> Any:
    return type(numbers)(*(values[part] for values in numbers))


def _peaks(method: Any, training: TrainingConfig) -> dict[str, float]:
    """The learning rate of each of a method's parameters at its peak, by its name."""
    name_of = {id(values): f"method.{name}" for name, values in method.named_parameters()}
    return {
        name_of[id(values)]: group["peak_lr"]
        for group in method.parameter_groups(training)
        for values in group["params"]
    }
