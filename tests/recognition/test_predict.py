import base64
import io
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_recognizer import NAMES, write_photographs, write_recognizers

from t2ipal.evaluation.evaluate import predict
from t2ipal.features.extraction import image_set
from t2ipal.features.photographs import load_photograph
from t2ipal.recognition.bundle import load_bundle
from t2ipal.recognition.config import PredictionOptions
from t2ipal.recognition.predict import (
    PredictionWork,
    Predictor,
    find_photographs,
    predict_photographs,
)
from t2ipal.recognition.rows import Prediction, columns
from t2ipal.store import Store


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizers")
    write_recognizers(Store(folder), folder / "clip")
    return Store(folder)


@pytest.fixture
def photographs(store):
    write_photographs(store)
    return find_photographs(store.uri, endpoint_url=store.endpoint_url)


def predicted(recognizers, photographs, num_shown=0, **options):
    images, keys = photographs
    work = PredictionWork(images, ((recognizers, "t2ipal-seed0"),), PredictionOptions(**options))
    batches = list(predict_photographs(work, keys, num_shown=num_shown))
    return [row for rows in batches for row in rows]


def test_rows_are_what_the_recognizer_says(recognizers, photographs):
    images, keys = photographs
    rows = predicted(recognizers, photographs, top_k=2, all_scores=True, batch_size=3)
    assert [row.file for row in rows] == keys
    bundle = load_bundle(recognizers, "t2ipal-seed0")
    good = [row for row in rows if row.status == "ok"]
    pixels = [load_photograph(images.read(row.file), 32) for row in good]
    seen = image_set(bundle.backbone, pixels, torch.zeros(7, 4))
    (scores,) = predict([bundle.recognizer], seen)
    for row, expected in zip(good, scores, strict=True):
        np.testing.assert_allclose(row.all_scores, expected, atol=2e-5)
        best = sorted(zip(row.all_scores, NAMES), reverse=True)[:2]
        assert row.labels == tuple(name for _, name in best)
        assert row.scores == tuple(score for score, _ in best)
        assert (row.width, row.height) == Image.open(io.BytesIO(images.read(row.file))).size
    (failed,) = [row for row in rows if row.status != "ok"]
    assert failed == Prediction("3-broken.JPG", (), (), 0, 0, "failed", "not an image")


def test_bytes_give_the_row_of_a_file(recognizers, photographs):
    images, _ = photographs
    predictor = Predictor(PredictionWork(images, ((recognizers, "t2ipal-seed0"),)))
    for row in predicted(recognizers, photographs):
        looked = predictor.look(images.read(row.file))
        assert looked.scores == pytest.approx(row.scores, abs=2e-5)
        assert replace(looked, file=row.file, scores=row.scores) == row


def test_batches_do_not_change_the_scores(recognizers, photographs):
    ones = predicted(recognizers, photographs, batch_size=1)
    for row, other in zip(ones, predicted(recognizers, photographs, batch_size=100)):
        assert replace(row, scores=()) == replace(other, scores=())
        np.testing.assert_allclose(row.scores, other.scores, atol=2e-5)


def test_a_least_score(recognizers, photographs):
    rows = predicted(recognizers, photographs, top_k=99)
    assert all(len(row.labels) in (0, 4) for row in rows)
    least = np.median([score for row in rows for score in row.scores])
    for row, less in zip(rows, predicted(recognizers, photographs, top_k=99, min_score=least)):
        assert less.scores == tuple(score for score in row.scores if score >= least)
        assert less.labels == row.labels[: len(less.scores)]
    assert all(row.labels == () for row in predicted(recognizers, photographs, min_score=1e9))


def test_thumbnails_of_the_first(recognizers, photographs):
    rows = predicted(recognizers, photographs, num_shown=5, batch_size=2)
    # One of the first five cannot be read.
    assert [bool(row.thumbnail) for row in rows] == [True] * 3 + [False, True] + [False] * 3
    picture = Image.open(io.BytesIO(base64.b64decode(rows[0].thumbnail)))
    assert picture.format == "JPEG" and picture.size == (256, 256)


def test_files_that_vanish_or_have_odd_names(recognizers, tmp_path):
    write_photographs(Store(tmp_path), 2)
    odd = b"caf\xe9.png"
    (tmp_path / "0.png").rename(tmp_path / odd.decode("utf-8", "surrogateescape"))
    images, keys = find_photographs(str(tmp_path))
    (tmp_path / "1.png").unlink()
    rows = {row.file: row for row in predicted(recognizers, (images, keys))}
    assert rows["1.png"].reason == f"No file {tmp_path}/1.png."
    assert rows["caf?.png"].status == "ok"


def test_columns_and_rows(recognizers, photographs):
    rows = predicted(recognizers, photographs, all_scores=True)
    names = list(columns(NAMES, all_scores=True))
    assert names[:7] == ["file", "labels", "scores", "width", "height", "status", "reason"]
    assert names[7:] == [f"score_{name}" for name in NAMES]
    for row in rows:
        values = row.row(NAMES)
        expected = list(row.all_scores) or [None] * 4
        assert [values[name] for name in names[7:]] == expected
    assert list(columns(NAMES, all_scores=False)) == names[:7]
    assert Prediction.from_dict(asdict(rows[0])) == rows[0]


def test_finding_photographs(store, tmp_path):
    write_photographs(store, 3)
    above = ["0.png", "1.png", "2.png", "3-broken.JPG"]
    assert find_photographs(store.uri, endpoint_url=store.endpoint_url)[1] == above
    found, keys = find_photographs(store.uri + "/", True, store.endpoint_url)
    assert keys == [*above, "below/deep.png"] and found.exists("below/deep.png")
    one, keys = find_photographs(f"{store.uri}/below/deep.png", endpoint_url=store.endpoint_url)
    assert keys == ["deep.png"] and one.read("deep.png") == store.read("0.png")


def test_no_photographs(store):
    with pytest.raises(FileNotFoundError, match=r"No photograph \(jpg, .*tiff\) in .*\.$"):
        find_photographs(store.uri, endpoint_url=store.endpoint_url)
    store.write("below/a.png", b"")
    with pytest.raises(FileNotFoundError, match="in folders below: add --recursive"):
        find_photographs(store.uri, endpoint_url=store.endpoint_url)
    with pytest.raises(FileNotFoundError, match="No photograph"):
        find_photographs(f"{store.uri}/none.png", endpoint_url=store.endpoint_url)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"top_k": 0}, "top_k must be > 0"), ({"batch_size": 0}, "batch_size must be > 0")],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PredictionOptions(**options)
