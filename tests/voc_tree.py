"""VOC2007's folders with three empty photographs."""

from pathlib import Path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def voc_tree(root: Path) -> Path:
    folder = root / "VOC2007"
    objects = {
        "000001": [("dog", 0), ("person", 1), ("person", 0)],
        "000002": [("car", 1)],
        "000004": [],
    }
    for image_id, named in objects.items():
        body = "".join(
            f"<object><name>{name}</name><difficult>{hard}</difficult></object>"
            for name, hard in named
        )
        write(folder / "Annotations" / f"{image_id}.xml", f"<annotation>{body}</annotation>")
        write(folder / "JPEGImages" / f"{image_id}.jpg", "")
    write(folder / "ImageSets" / "Main" / "test.txt", "000001\n000002\n000004\n")
    return folder
