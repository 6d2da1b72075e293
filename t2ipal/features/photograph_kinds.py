"""What a photograph's file is, by its name and by its first bytes; decodes nothing."""

ENDINGS = (
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "avif", "jp2", "tif", "tiff",
)  # fmt: skip
"""Of files that are taken for photographs, in any case."""
UNREAD_ENDINGS = ("heic", "heif", "jxl", "svg")
"""Of files that are too, though nothing here reads them: so they are named and not passed over."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM", "AVIF")
"""Pillow's names of what is read; some of its others start programs on what a file tells them."""
READ = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"RIFF", "WebP"),
)
"""First bytes of what is read, at least where it is not damaged and of an ordinary kind."""
UNREAD = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
)
HEIC, AVIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1"), (b"avif", b"avis")
"""Brands of an ISO media file, behind `ftyp`; the others are of videos."""
NO_IMAGES = (
    (b"version https://git-lfs", "a pointer of git LFS: run `git lfs pull`"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)


def is_photograph(key: str) -> bool:
    """Whether a file's name ends as one of a photograph does; hidden files are none."""
    name, _, ending = key.rpartition("/")[2].rpartition(".")
    return ending.lower() in ENDINGS + UNREAD_ENDINGS and not name.startswith(".") and name != ""


def why_unread(data: bytes) -> str:
    """What to say of bytes in which no decoder finds a picture."""
    start = data[:1024].lstrip().lower()
    for signature, what in NO_IMAGES:
        if start.startswith(signature):
            return f"not an image but {what}"
    for signature, kind in READ:
        if data.startswith(signature):
            return f"damaged, or a rare kind of {kind}"
    kind = next((kind for signature, kind in UNREAD if data.startswith(signature)), None)
    if data[4:8] == b"ftyp":
        if data[8:12] in AVIF:
            return "damaged, or AVIF that this Pillow does not read: save it as JPEG or PNG"
        kind = "HEIC" if data[8:12] in HEIC else "video"
    elif b"<svg" in start:
        kind = "SVG"
    return f"{kind}, which is not read here: save it as JPEG or PNG" if kind else "not an image"
