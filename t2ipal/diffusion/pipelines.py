"""Loads a diffusers pipeline whole, or says what is wrong with it; the border to diffusers.

Reads safetensors only. Knows nothing of captions or samples.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from t2ipal.config import parse_json, require
from t2ipal.diffusion.config import SCHEDULERS, SynthesisConfig
from t2ipal.diffusion.names import (
    hub_file,
    hub_model,
    model_folder,
    pipeline_folder,
    unet_weights_path,
)
from t2ipal.diffusion.rounding import ROUNDED, round_weights, stored_types

MISFITS = ("size mismatch", "mismatched", "expected shape", "Unable to load weights", "Missing key")
"""Words of diffusers and transformers where a file of weights is damaged or of another shape."""
PART_FILES = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    **dict.fromkeys(("text_encoder", "unet", "vae"), "config.json"),
}
"""File that each part of a pipeline folder must hold; without some, a library takes defaults."""
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
"""diffusers' classes that decode what a Stable Diffusion draws."""
MAX_REASON = 600
"""Letters of a library's report that reach a message."""


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collects what diffusers and transformers have to say, in place of printing it."""
    remarks: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: remarks.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [listener], False
        logger.setLevel(logging.WARNING)
    try:
        yield remarks
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


@contextmanager
def _loading(what: str, place: str | Path) -> Iterator[None]:
    """Says in one line what is wrong with what diffusers is asked to load.

    Raises:
        FileNotFoundError: a file is missing, or of a kind that is never opened.
        ValueError: the weights are damaged, of another shape or not all there.
    """
    with _remarks() as remarks:
        try:
            yield
        except (
            OSError, RuntimeError, ValueError, AttributeError, KeyError, TypeError, SafetensorError
        ) as error:  # fmt: skip
            others = [remark for remark in remarks if str(error) not in remark]
            text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(" ".join([str(error), *others]).split()))
            shown = text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."
            if isinstance(error, SafetensorError) or any(sign in text for sign in MISFITS):
                raise ValueError(f"The weights in {place} do not fit: {shown}") from error
            if any([*Path(place).glob("*.bin"), *Path(place).glob("*/*.bin")]):
                shown += " A .bin file may run code when it is read: convert it to safetensors."
            raise FileNotFoundError(f"The {what} {place} could not be loaded: {shown}") from error
    for remark in remarks:  # where weights are missing, the library takes random ones
        missing = "newly initialized" in remark
        require(not missing, f"The weights in {place} must be complete: {' '.join(remark.split())}")


def load_pipeline(config: SynthesisConfig, dtype: Any, autocast: Any = None) -> Any:
    """The diffusers pipeline that `config` names, with its scheduler, from safetensors only.

    Of several workers on a machine that ask for a hub model, one downloads each file: the hub's
    client holds a lock for each in its cache, and the others find the file there.

    Args:
        config: names it.
        dtype: of its weights.
        autocast: precision to which the pipeline will be autocast, if it always will be: weights
            that this rounds take no more memory than they need.
    """
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import diffusers
    import transformers

    check_pipeline(config)
    folder = pipeline_folder(config.pipeline)
    source = folder or config.pipeline
    diffusers.utils.logging.disable_progress_bar()
    if folder is not None:  # for a hub model the bars of downloads would be gone too
        transformers.utils.logging.disable_progress_bar()
    with _loading("pipeline", source):
        types = stored_types(folder) if folder and autocast else {}
        if config.unet_weights is not None:
            types.pop("unet", None)  # the new ones may be stored in another precision
        pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
            str(source), revision=config.revision, dtype={**types, "default": dtype},
            use_safetensors=True,
        )  # fmt: skip
    require(
        hasattr(pipeline, "encode_prompt") and hasattr(pipeline, "unet"),
        f"{source} must hold a Stable Diffusion (1.x, 2.x, XL) that reads captions, got a "
        f"{type(pipeline).__name__}.",
    )
    _require_vocabularies(pipeline, str(source))
    if config.unet_weights is not None:
        with _loading("UNet of", config.unet_weights):
            load_unet_weights(pipeline.unet, config.unet_weights)
    if config.vae is not None:
        vae = _load_vae(config.vae, dtype)
        _require_same_latents(vae, pipeline.vae, config)
        pipeline.vae = vae
    if autocast:
        for name in ROUNDED:
            if (part := getattr(pipeline, name, None)) is not None:
                round_weights(part, autocast)
    _require_possible(pipeline, config)
    spacing, own = config.timestep_spacing, pipeline.scheduler
    changes = {} if spacing == "default" else {"timestep_spacing": spacing}
    if changes or config.scheduler != "default":
        kind = getattr(diffusers, SCHEDULERS[config.scheduler] or type(own).__name__)
        pipeline.scheduler = kind.from_config(own.config, **changes)
        spaced = "timestep_spacing" in pipeline.scheduler.config and "LCM" not in kind.__name__
        require(
            spaced or not changes,
            f"timestep_spacing must be default with {kind.__name__}, got {spacing}.",
        )
    pipeline.set_progress_bar_config(disable=True)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    return pipeline


def _load_vae(name: str, dtype: Any) -> Any:
    """The autoencoder that `vae` names, from safetensors only."""
    import diffusers

    folder = model_folder(name)
    place, revision = (str(folder), None) if folder else hub_model(name)
    with _loading("autoencoder", place):
        values: Any = diffusers.AutoencoderKL.load_config(place, revision=revision)
    kind = _require_autoencoder(values, name)
    with _loading("autoencoder", place):
        return getattr(diffusers, kind).from_pretrained(
            place, revision=revision, dtype=dtype, use_safetensors=True
        )


def check_pipeline(config: SynthesisConfig) -> None:
    """Looks at what a config names on this machine, in no time; loads nothing.

    Raises:
        FileNotFoundError: a file that a folder must hold, or `unet_weights`, is missing.
        ValueError: the folder names no pipeline, or `revision` names one of a folder; or that of
            `vae` names no autoencoder.
    """
    folder = pipeline_folder(config.pipeline)
    if folder is not None:
        require(
            config.revision is None,
            f"revision must be left out with a folder, which has none, got {config.revision} with "
            f"{config.pipeline}. A model of the hub has revisions.",
        )
        _check_folder(folder)
    if config.unet_weights is not None:
        unet_weights_path(config.unet_weights)
    folder = None if config.vae is None else model_folder(config.vae)
    if folder is not None:
        if not (folder / "config.json").is_file():
            own = folder / "vae"
            raise FileNotFoundError(
                f"vae must be a folder that holds config.json, or owner/name@revision of the hub; "
                f"{folder} does not. Give "
                + (f"{own}." if own.exists() else "a folder written by diffusers' save_pretrained.")
            )
        _require_autoencoder(_read_mapping(folder / "config.json"), str(folder))


def _check_folder(folder: Path) -> None:
    """Raises where a pipeline folder lacks a part's own file, or names no pipeline at all."""
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"A pipeline folder must hold model_index.json; {folder} does not. "
            "Give a folder written by diffusers' save_pretrained, a hub name, or pictovoc."
        )
    index = _read_mapping(folder / "model_index.json")
    require(
        isinstance(index.get("_class_name"), str),
        f"{folder}/model_index.json must name the pipeline's _class_name, as diffusers writes it.",
    )
    for name, part in index.items():
        file = PART_FILES.get(name.removesuffix("_2"))
        if file is None or not isinstance(part, list) or part[:1] == [None]:
            continue
        if not (folder / name / file).is_file():
            raise FileNotFoundError(
                f"{folder} must hold {name}/{file}, for its model_index.json names the {name}. "
                "Copy the whole folder."
            )
        _read_mapping(folder / name / file)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    require(isinstance(values, dict), f"{path} must be a JSON mapping, got {str(values)[:60]}.")
    return values


def _require_possible(pipeline: Any, config: SynthesisConfig) -> None:
    """Raises where each sample would fail for what the config asks of this pipeline."""
    steps = getattr(pipeline.scheduler.config, "num_train_timesteps", None)
    require(
        steps is None or config.num_inference_steps < steps,
        f"num_inference_steps must be < {steps}, the steps that {config.pipeline} was trained "
        f"with, got {config.num_inference_steps}.",
    )
    size, shrinks = config.image_size_px, getattr(pipeline, "vae_scale_factor", 8)
    require(
        size is None or size % shrinks == 0,
        f"image_size_px must be a multiple of {shrinks}, by which the autoencoder of "
        f"{config.pipeline} shrinks, got {size}.",
    )
    upcast = getattr(pipeline.vae.config, "force_upcast", False)
    require(
        upcast or not config.acceleration.decode_bf16,
        f"acceleration.decode_bf16 must be left out with {config.vae or config.pipeline}, whose "
        "autoencoder decodes in fp16 as it is (force_upcast is false in its config.json).",
    )


def _require_autoencoder(values: Mapping[str, Any], name: str) -> str:
    """The class of an autoencoder's config.json; raises where it is none that can be used."""
    kind = values.get("_class_name")
    require(
        kind in AUTOENCODERS, f"vae must be an {' or '.join(AUTOENCODERS)}, got a {kind} in {name}."
    )
    return str(kind)


def _require_same_latents(new: Any, own: Any, config: SynthesisConfig) -> None:
    """Raises where an autoencoder is not for the latents of the pipeline's own one."""
    names = ["latent_channels", "factor by which images shrink", "scaling_factor"]
    if type(new) is not type(own):
        names.pop()  # each class scales latents in its own way
    for name in names:
        here, there = (
            part.config.get(name, 2 ** (len(part.config.block_out_channels) - 1))
            for part in (new, own)
        )
        require(
            here == there,
            f"vae must have the {name} of the autoencoder of {config.pipeline}, {there}, got "
            f"{here} in {config.vae}: it decodes the latents of another model.",
        )


def _require_vocabularies(pipeline: Any, source: str) -> None:
    """Raises where a library made up a tokenizer that knows no words."""
    for name, part in pipeline.components.items():
        if not name.startswith("tokenizer") or part is None:
            continue
        if len(part.get_vocab()) <= len(part.all_special_tokens):
            raise FileNotFoundError(f"No vocabulary of the {name} in {source}. Add its files.")


def load_unet_weights(unet: Any, name: str) -> None:
    """Loads what `unet_weights` names into a UNet."""
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    path = unet_weights_path(name)
    if path is None:
        repository, revision, file = hub_file(name)
        path = hf_hub_download(repository, file, revision=revision)
    unet.load_state_dict(load_file(path))
