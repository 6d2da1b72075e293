import pytest
from PIL import Image

from benchmarks import world_pictures


def test_a_picture_is_drawn(tmp_path):
    sizes = world_pictures.main(["--output", str(tmp_path), "--only", "domains.jpg"])["bytes"]
    assert sizes == {"domains.jpg": (tmp_path / "domains.jpg").stat().st_size}
    with Image.open(tmp_path / "domains.jpg") as picture:  # six scenes in four looks
        assert picture.size == (8 + 76 + 6 * 248 + 8, 8 + 4 * 248)


def test_a_name_that_is_no_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown picture 'scenez\.jpg'\. Did you mean"):
        world_pictures.main(["--output", str(tmp_path / "new"), "--only", "scenez.jpg"])
    assert not (tmp_path / "new").exists()
