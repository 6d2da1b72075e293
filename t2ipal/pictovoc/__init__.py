"""PictoVOC: a drawn world of the 20 VOC2007 classes, its captions, and small models of its own."""

from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
"""Home of the shipped models: `clip`, `stable-diffusion` and `judge`."""
