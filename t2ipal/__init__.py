"""t2ipal: class names and captions in, a multi-label image recognizer out (T2I-PAL, TPAMI 2025)."""

__version__ = "0.1.0"
