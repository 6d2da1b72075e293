"""PictoVOC: a drawn world with the 20 VOC2007 classes, its captions, and the small models trained on it."""

from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
"""Home of the shipped models: `clip`, `stable-diffusion` and `judge`."""
