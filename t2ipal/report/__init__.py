"""One run as one self-contained HTML page: what it reached, what it saw, and how it was made.

`contents` says what a page can hold, and `gathering` puts it together from what `finding` finds of
a run, be it finished or not, and what `drawn` sees in its images. `page` makes HTML of it
from sections, which draw with `charts` (inline SVG) and `pictures` (images as data URIs) and write
with `markup` (escaping); they know neither stores nor models.
"""

from t2ipal.report.contents import (
    Counts,
    Curve,
    HeatmapExample,
    JudgedImages,
    MethodResult,
    Report,
    SheetEntry,
    Trial,
)
from t2ipal.report.page import render_report

__all__ = [
    "Counts",
    "Curve",
    "HeatmapExample",
    "JudgedImages",
    "MethodResult",
    "Report",
    "SheetEntry",
    "Trial",
    "render_report",
]
