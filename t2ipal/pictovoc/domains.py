"""How a scene is rendered: a photograph, in other colors, as lines, amid clutter, or at night.

A domain changes what a picture looks like, never what is in it: labels and boxes stay as they are.
"""

from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from t2ipal.config import one_of
from t2ipal.pictovoc.drawing import SUBPIXEL_BITS, Drawing, paint, placed_parts

DOMAINS: dict[str, dict[str, float]] = {
    "photo": {"photo": 1.0},
    "palette": {"palette": 1.0},
    "lines": {"lines": 1.0},
    "clutter": {"clutter": 1.0},
    "shifted": {"palette": 1.0, "lines": 1.0, "clutter": 1.0},
    "night": {"night": 1.0},
    "web": {"photo": 0.3, "palette": 0.3, "lines": 0.2, "clutter": 0.2},
}
"""Name -> the looks it mixes and their weights. `photo` is the domain of every result unless said
otherwise, `shifted` and `night` are tests of robustness, `web` is what the small CLIP learns from:
it has never seen a night."""
CLUTTER_COUNTS = (4, 5, 6, 7)
NIGHT_TINTS = ((0.62, 0.75, 1.0), (1.0, 0.8, 0.45), (0.6, 1.0, 0.65))
"""Moon, sodium lamp and night-vision glass: how much of red, green and blue they leave."""
NIGHT_LIGHT = (0.4, 0.7)
NIGHT_NOISE = (3.0, 10.0)
"""So that zero-shot CLIP has 40 to 55 mAP on validation scenes; no trained method chose them."""


@dataclass(frozen=True)
class Look:
    """How one scene is rendered; everything random about it is drawn beforehand."""

    kind: str
    channels: tuple[int, int, int] = (0, 1, 2)
    negative: bool = False
    hue_degrees: float = 0.0
    paper: tuple[int, ...] = (255, 255, 255)
    ink: tuple[int, ...] = (0, 0, 0)
    """RGB of the ground and of the lines of a line drawing."""
    wash: float = 0.0
    """Share of the painted background that shows through the paper."""
    speckles: tuple[tuple[float, float, float, float, int, int, int], ...] = ()
    """x, y, rx, ry as fractions of the side and RGB of blots on the background."""
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Share of red, green and blue that is left at night."""
    noise: float = 0.0
    """Standard deviation of the noise of each color at night, in gray levels."""
    noise_seed: int = 0


def choose_look(domain: str, rng: Random) -> Look:
    """Draws the look of one scene of a domain."""
    one_of("domain", domain, DOMAINS)
    kinds = DOMAINS[domain]
    kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
    if kind == "palette":
        channels = rng.choice(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
        return Look(kind, channels, rng.random() < 0.3, rng.uniform(0.0, 360.0))
    if kind == "lines":
        light, dark = (
            [rng.randint(206, 255) for _ in range(3)],
            [rng.randint(0, 80) for _ in range(3)],
        )
        if rng.random() < 0.25:
            light, dark = dark, light
        return Look(kind, paper=tuple(light), ink=tuple(dark), wash=rng.uniform(0.0, 0.3))
    if kind == "clutter":

        def blot() -> tuple:
            place = (rng.random(), rng.random())
            radii = (rng.uniform(0.03, 0.16), rng.uniform(0.03, 0.16))
            return (*place, *radii, *(rng.randint(20, 235) for _ in range(3)))

        blots = [blot() for _ in range(rng.randint(8, 20))]
        return Look(kind, speckles=tuple(blots))
    if kind == "night":
        tint = rng.choice(NIGHT_TINTS)
        left = rng.uniform(*NIGHT_LIGHT)
        red, green, blue = (left * share for share in tint)
        noise, seed = rng.uniform(*NIGHT_NOISE), rng.getrandbits(64)
        return Look(kind, light=(red, green, blue), noise=noise, noise_seed=seed)
    return Look(kind)


def background(canvas: UInt8[np.ndarray, "side side 3"], look: Look) -> None:
    """Changes the painted place, in place, before any object stands on it."""
    if look.kind == "lines":
        paper = np.array(look.paper, dtype=np.float32)
        canvas[:] = (paper * (1 - look.wash) + canvas * look.wash).astype(np.uint8)
    side = len(canvas)
    for x, y, rx, ry, *color in look.speckles:
        center, axes = (int(x * side), int(y * side)), (int(rx * side) + 1, int(ry * side) + 1)
        cv2.ellipse(canvas, center, axes, 0, 0, 360, tuple(color), -1, cv2.LINE_AA)


def paint_object(
    canvas: UInt8[np.ndarray, "side side 3"],
    picture: Drawing,
    matrix: Float[np.ndarray, "2 2"],
    center: tuple[float, float],
    colors: dict[str, tuple[float, float, float]],
    look: Look,
) -> None:
    """Draws one object, in place: filled with its colors, or as outlines on paper."""
    if look.kind != "lines":
        paint(canvas, picture, matrix, center, colors)
        return
    for _, shapes in placed_parts(picture, matrix, center):
        cv2.fillPoly(canvas, shapes, look.paper, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.polylines(canvas, shapes, True, look.ink, 1, cv2.LINE_AA, SUBPIXEL_BITS)


def recolor(canvas: UInt8[np.ndarray, "side side 3"], look: Look) -> UInt8[np.ndarray, "s s 3"]:
    """The finished canvas in the look's colors."""
    if look.kind != "palette":
        return canvas
    image = canvas[:, :, look.channels]
    if look.negative:
        image = 255 - image
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] = ((hsv[:, :, 0].astype(np.int32) + int(look.hue_degrees / 2)) % 180).astype(
        np.uint8
    )
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def develop(
    image: UInt8[np.ndarray, "side side 3"], look: Look, grain: bool = True
) -> UInt8[np.ndarray, "side side 3"]:
    """The finished picture as it was taken: at night dark and tinted, with `grain` noisy too."""
    if look.kind != "night":
        return image
    dark = image.astype(np.float32) * np.array(look.light, dtype=np.float32)
    if grain:
        noise = np.random.Generator(np.random.PCG64(look.noise_seed))
        dark += look.noise * noise.standard_normal(image.shape, dtype=np.float32)
    return dark.clip(0, 255).astype(np.uint8)
