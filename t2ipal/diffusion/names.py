"""What a model's name means: a folder or file of this machine, or a model of the hub."""

from pathlib import Path

from t2ipal.pictovoc import WEIGHTS_DIR


def pipeline_folder(name: str) -> Path | None:
    """The folder of this machine that `pipeline` names; None where it is a model of the hub."""
    return WEIGHTS_DIR / "stable-diffusion" if name == "pictovoc" else model_folder(name)


def model_folder(name: str) -> Path | None:
    """The folder of this machine that a name is the path of; None where it is one of the hub's."""
    folder = Path(name).expanduser()
    return folder if name.startswith((".", "/", "~")) or folder.exists() else None


def hub_model(name: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of owner/name or owner/name@revision."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def unet_weights_path(name: str) -> Path | None:
    """The file of this machine that `unet_weights` names; None where it is one of the hub.

    Raises:
        FileNotFoundError: it is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") < 2:
        raise FileNotFoundError(
            f"unet_weights must be a file or owner/name@revision/file, got {name}."
        )
    return None


def hub_file(name: str) -> tuple[str, str | None, str]:
    """(owner/name, revision or None, file) of owner/name/file or owner/name@revision/file."""
    owner, model, file = name.split("/", 2)
    model, _, revision = model.partition("@")
    return f"{owner}/{model}", revision or None, file
