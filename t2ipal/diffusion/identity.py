"""Which model a SynthesisConfig names: a commit of the hub, or a digest of files.

A name alone does not say: a branch moves, and a folder is written over. Loads no model.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from t2ipal.config import require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.names import (
    hub_file,
    hub_model,
    model_folder,
    pipeline_folder,
    unet_weights_path,
)
from t2ipal.diffusion.pipelines import check_pipeline

ENDINGS = (".json", ".safetensors", ".txt", ".model")
"""Of the files that a part of a pipeline folder is loaded from."""
INDEX = "model_index.json"
COMMIT = re.compile("[0-9a-f]{40}")


def identify_model(config: SynthesisConfig) -> dict[str, str]:
    """What the config's names stand for now: "commit HASH" of the hub, or "sha256 DIGEST" of files.

    Asks the hub, or its cache alone where HF_HUB_OFFLINE is set.

    Raises:
        FileNotFoundError: there is no such model, revision or file.
        ValueError: a folder is damaged.
        ConnectionError: the hub cannot be asked.
    """
    check_pipeline(config)
    model = _local_digests(config)
    if "pipeline" not in model:
        model["pipeline"] = _commit("pipeline", config.pipeline, config.revision, INDEX)
    if config.unet_weights is not None and "unet_weights" not in model:
        model["unet_weights"] = _commit("unet_weights", *hub_file(config.unet_weights))
    if config.vae is not None and "vae" not in model:
        model["vae"] = _commit("vae", *hub_model(config.vae), "config.json")
    return model


def pinned(config: SynthesisConfig, model: Mapping[str, str]) -> SynthesisConfig:
    """The config that loads exactly this model, whatever its branch holds by then.

    Raises:
        FileNotFoundError: it lacks a file here.
        ValueError: the files here are of another model.
    """
    check_pipeline(config)
    here = _local_digests(config)
    for part, value in model.items():
        kind, _, pin = value.partition(" ")
        if kind == "commit" and part not in here:
            if part == "pipeline":
                config = dataclasses.replace(config, revision=pin)
            elif part == "vae":
                config = dataclasses.replace(config, vae=f"{hub_model(str(config.vae))[0]}@{pin}")
            else:
                repository, _, file = hub_file(str(config.unet_weights))
                config = dataclasses.replace(config, unet_weights=f"{repository}@{pin}/{file}")
            continue
        require(
            here.get(part) == value,
            f"{part} {getattr(config, part)} must be {value}, with which the run was begun, got "
            f"{here.get(part, 'none of its files')}. Bring back the files that it was.",
        )
    return config


def _local_digests(config: SynthesisConfig) -> dict[str, str]:
    """Of those parts of the model that are files of this machine."""
    digests, folder = {}, pipeline_folder(config.pipeline)
    if folder is not None:
        parts = json.loads((folder / INDEX).read_bytes())
        files = [path for part in parts for path in (folder / part).glob("*")]
        files = [folder / INDEX, *(path for path in files if path.suffix in ENDINGS)]
        digests["pipeline"] = _digest(folder, files)
    if config.unet_weights is not None:
        path = unet_weights_path(config.unet_weights)
        if path is not None:
            digests["unet_weights"] = _digest(path.parent, [path])
    folder = None if config.vae is None else model_folder(config.vae)
    if folder is not None:
        files = [path for path in folder.glob("*") if path.suffix in ENDINGS]
        digests["vae"] = _digest(folder, files)
    return digests


def _digest(folder: Path, files: list[Path]) -> str:
    """Of the files' places in the folder and their content."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return f"sha256 {digest.hexdigest()[:16]}"


def _commit(part: str, repository: str, revision: str | None, file: str) -> str:
    """The commit of the hub at which a revision, None for the main branch, has a file of a part."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = revision or "main"
    try:
        cached = try_to_load_from_cache(repository, file, revision=wanted)
        if isinstance(cached, str) and (constants.HF_HUB_OFFLINE or COMMIT.fullmatch(wanted)):
            return f"commit {Path(cached).parents[file.count('/')].name}"
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(repository, revision=wanted)
            return f"commit {info.sha}"
    except HFValidationError as error:
        raise ValueError(
            f"{part} must be a folder that is there or a name of the hub, got {repository}."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"revision must be a branch, tag or commit of {repository}, got {wanted}."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"The hub shows no model {repository}. Give its owner/name there, a folder that is "
            "here, or log in by `hf auth login` to a model that asks for it."
        ) from error
    except (HTTPError, OSError) as error:
        raise ConnectionError(
            f"The hub did not say what {repository} is: {error}. Try again, name a folder, or set "
            "HF_HUB_OFFLINE=1 to take what its cache on this machine holds."
        ) from error
    raise FileNotFoundError(
        f"{repository} at revision {wanted} must be in {constants.HF_HUB_CACHE}, the hub's cache, "
        f"for HF_HUB_OFFLINE is set; {file} is not there. Name a revision that is, or unset "
        "HF_HUB_OFFLINE once."
    )
