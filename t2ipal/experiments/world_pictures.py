"""The pictures of docs/world.md: what the embedded world looks like and what its models make of it.

Draws with Pillow alone. `benchmarks/world_pictures.py` runs it.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from t2ipal.config import one_of
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer
from t2ipal.experiments.config import demo_synthesis
from t2ipal.experiments.demo import choose_captions
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.stored import load_recognizer
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.pictovoc.pixels import to_images
from t2ipal.pictovoc.scenes import CLASS_NAMES, Scene, draw_classes, draw_scene
from t2ipal.places import LocalPath, Uri
from t2ipal.pretraining.autoencoder import draw_scenes, known_latents
from t2ipal.pretraining.checks import FINER_PX, PROMPT_NAMES
from t2ipal.report.pictures import overlay
from t2ipal.report.sheets import BAD, GAP, GOOD, PAPER, enlarged, grid, in_rows, note
from t2ipal.store import Store
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.training.recipes import recipe


@dataclass(frozen=True)
class PicturesConfig:
    """Draws the pictures."""

    output: LocalPath = "docs/pictures"
    """Folder for the pictures."""
    only: tuple[str, ...] = ()
    """Names of the pictures to draw; none: all of them."""
    recognizer: Uri | None = None
    """Folder of a trained recognizer, whose heatmaps are shown; None: zero-shot prompts."""
    guidance_scales: tuple[float, ...] = (1, 2, 4, 7.5)
    """Guidance scales of the synthetic images."""


def classes(options: PicturesConfig) -> Image.Image:
    """Every class in four drawings."""
    cells = []
    for name in CLASS_NAMES:
        drawn = [enlarged(draw_classes([name], seed).image, 148) for seed in range(4, 8)]
        cells.append(grid([[in_rows(drawn, 2, 4)], [note(name, 300, 20, center=True)]], 4))
    return in_rows(cells, 5, 16)


def scenes(options: PicturesConfig) -> Image.Image:
    """Test scenes with their captions."""
    texts = [text for _, text in world_captions("test", 12)]
    images = [draw_scene("test", index).image for index in range(len(texts))]
    cells = [grid([[enlarged(i, 250)], [note(t, 250)]]) for i, t in zip(images, texts, strict=True)]
    return in_rows(cells, 6, 14)


def domains(options: PicturesConfig) -> Image.Image:
    """The same scenes in every look."""
    rows = []
    for domain in ("photo", "palette", "lines", "clutter"):
        images = [draw_scene("test", index, domain=domain).image for index in range(6)]
        rows.append([note(domain, 76, 20), *(enlarged(image, 240) for image in images)])
    return grid(rows)


def synthetic(options: PicturesConfig) -> Image.Image:
    """Captions as Stable Diffusion draws them at several guidance scales, and as rendered."""
    chosen, shown = [], set()
    for caption in choose_captions(300)[1].kept:
        if len(chosen) < 8 and len(caption.labels) <= 2 and not shown & {*caption.labels}:
            chosen.append(caption)
            shown |= {*caption.labels}
    batch = {
        "caption_id": np.array([caption.caption_id for caption in chosen]),
        "caption": np.array([caption.caption for caption in chosen]),
        "k": np.zeros(len(chosen), dtype=np.int64),
    }
    base = demo_synthesis()
    columns = {}
    for scale in options.guidance_scales:
        config = dataclasses.replace(base, guidance_scale=scale)
        columns[f"guidance {scale:g}"] = Synthesizer(config)(batch)["image"]
    columns["rendered"] = RenderingSynthesizer(base)(batch)["image"]
    judge, side = load_judge(WEIGHTS_DIR / "judge"), 196
    found = {head: judge.probs(images) > NAMED_THRESHOLD for head, images in columns.items()}
    rows = [[note("", 300), *(note(head, side, 20, center=True) for head in columns)]]
    for number, caption in enumerate(chosen):
        row = [note(caption.caption, 300, 20)]
        for head, images in columns.items():
            seen = [(CLASS_NAMES[k], found[head][number, k]) for k in caption.labels]
            told = [(name, GOOD) if there else (f"no {name}", BAD) for name, there in seen]
            told = [(f"{name},", color) for name, color in told[:-1]] + told[-1:]
            verdict = note(told, side, 17, center=True)
            row.append(grid([[enlarged(images[number], side)], [verdict]], 2))
        rows.append(row)
    return grid(rows)


def boxed(image: Image.Image, scene: Scene, class_name: str) -> Image.Image:
    """The picture with the boxes of a class."""
    image = image.copy()
    for item in scene.objects:
        if item.class_name == class_name:
            x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) * (image.width - 1) for v in item.box)
            ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), outline=(90, 255, 120), width=2)
    return image


def heatmaps(options: PicturesConfig) -> Image.Image:
    """Where a recognizer looks for the two classes of a scene, and where they are."""
    backbone = load_backbone(BackboneConfig(local_image_size_px=FINER_PX))
    if options.recognizer is None:
        settings = recipe("zsclip_local", "pictovoc", CLASS_NAMES, PROMPT_NAMES)
        recognizer = settings.method.build(backbone).export()
    else:
        recognizer = load_recognizer(Store(options.recognizer), "")
    some = [draw_scene("test", index) for index in range(60)]
    chosen = [scene for scene in some if scene.labels.sum() == 2][:8]
    features = backbone.encode_images(torch.from_numpy(np.stack([s.image for s in chosen])))
    maps = recognizer.scorer.heatmap(features.local_features).numpy()
    side, cells = math.isqrt(maps.shape[-1]), []
    for scene, heat in zip(chosen, maps, strict=True):
        row = [grid([[enlarged(scene.image, 252)], [note("", 252)]], 2)]
        for index in np.flatnonzero(scene.labels):
            picture = Image.fromarray(
                overlay(scene.image, heat[index, -side * side :].reshape(side, side))
            )
            picture = boxed(picture.resize((252, 252)), scene, CLASS_NAMES[index])
            row.append(grid([[picture], [note(CLASS_NAMES[index], 252, center=True)]], 2))
        cells.append(grid([row], 4))
    return in_rows(cells, 2, 20)


def autoencoder(options: PicturesConfig) -> Image.Image:
    """Scenes above what the autoencoder makes of them, told which class is where."""
    vae = load_pipeline(SynthesisConfig(), torch.float32).vae
    drawn = draw_scenes("test", 0, 14)
    images = np.stack([scene.image for scene in drawn])
    with torch.inference_mode():
        decoded = to_images(vae.decode(known_latents(vae, drawn)).sample)
    rows = []
    for first in (0, 7):
        for head, pictures in (("scene", images), ("decoded", decoded)):
            cells = [enlarged(picture, 206) for picture in pictures[first : first + 7]]
            rows.append([note(head, 80), *cells])
    return grid(rows)


PICTURES = {
    "classes.jpg": classes,
    "scenes.jpg": scenes,
    "domains.jpg": domains,
    "synthetic.jpg": synthetic,
    "heatmaps.jpg": heatmaps,
    "autoencoder.jpg": autoencoder,
}


def draw_pictures(options: PicturesConfig) -> dict[str, int]:
    """Draws what is asked for; each file's size in bytes.

    Raises:
        ValueError: a name that is no picture's.
    """
    for name in options.only:
        one_of("picture", name, PICTURES)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for name in options.only or PICTURES:
        picture = PICTURES[name](options)
        framed = Image.new("RGB", (picture.width + 2 * GAP, picture.height + 2 * GAP), PAPER)
        framed.paste(picture, (GAP, GAP))
        framed.save(output / name, quality=75, optimize=True)
        sizes[name] = (output / name).stat().st_size
    return sizes
