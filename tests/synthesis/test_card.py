import io
import json

import pytest
import yaml
from painter import contents
from PIL import Image
from small_run import write_small_run

from t2ipal.store import Store, read_manifest
from t2ipal.synthesis.card import write_card


def test_a_card_says_what_a_run_holds(tmp_path):
    write_small_run(tmp_path)
    store = Store(tmp_path)
    write_card(store)
    manifest, text = read_manifest(store), store.read("README.md").decode()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["size_categories"] == ["n<1K"]
    assert f"| images | {manifest.num_images} |" in body
    assert "| samples without an image | 0 |" in body
    assert "| `pipeline` | rendered |" in body and "| `guidance_scale` | 2.0 |" in body
    # In the ring of captions every class is named twice, each time with two images.
    row = next(line for line in body.splitlines() if line.startswith("| sheep |"))
    assert int(row.split("|")[2]) >= 2 and int(row.split("|")[3]) == 2 * int(row.split("|")[2])
    assert "1. " in body and "24. " in body and "25. " not in body
    sheet = Image.open(io.BytesIO(store.read("samples.jpg")))
    assert sheet.size == (6 * 160, 4 * 160)
    before = {name: store.read(name) for name in ("README.md", "samples.jpg")}
    write_card(store)
    assert {name: store.read(name) for name in before} == before


def test_a_readme_of_someone_else_is_left_alone(tmp_path, caplog):
    write_small_run(tmp_path)
    (tmp_path / "README.md").write_text("---\ntitle: My project\n---\n")
    before = contents(tmp_path)
    write_card(Store(tmp_path))
    assert contents(tmp_path) == before
    assert "README.md in" in caplog.text and "was left alone. Remove it and run" in caplog.text


@pytest.mark.parametrize("vocabulary", ["voc2007", "mine: all", "x " * 99])
def test_a_card_of_an_earlier_state_is_written_again(tmp_path, caplog, vocabulary):
    write_small_run(tmp_path)
    store, path = Store(tmp_path), tmp_path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["settings"]["vocabulary"] = vocabulary
    for num_images in (47, 48):
        path.write_text(json.dumps({**manifest, "num_images": num_images}))
        write_card(store)
        assert f"| images | {num_images} |" in store.read("README.md").decode()
    assert not caplog.text


def test_what_a_caption_says_stays_text(tmp_path):
    from t2ipal.synthesis.card import _cell

    assert _cell("a | b\n<script> `x` *y*") == r"a \| b \<script\> \`x\` \*y\*"


def test_an_unfinished_run_has_no_card(tmp_path):
    with pytest.raises(FileNotFoundError, match="No manifest"):
        write_card(Store(tmp_path))
