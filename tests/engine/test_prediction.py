import dataclasses
from functools import partial

import pytest
from small_recognizer import write_photographs, write_recognizers

from t2ipal.engine.prediction import on_ray
from t2ipal.pools import PoolConfig
from t2ipal.recognition.bundle import Whereabouts
from t2ipal.recognition.config import PredictionOptions
from t2ipal.recognition.predict import (
    PredictionWork,
    find_photographs,
    in_process,
    predict_photographs,
)
from t2ipal.store import Store


def test_the_same_rows_in_the_same_order_on_ray(ray_session, one_thread, tmp_path):
    store = Store(tmp_path / "recognizers")
    write_recognizers(store, tmp_path / "clip")
    write_photographs(Store(tmp_path / "photos"), 11)
    images, keys = find_photographs(str(tmp_path / "photos"), recursive=True)
    options = PredictionOptions(top_k=3, all_scores=True, batch_size=2)
    places = tuple((store, f"t2ipal-seed{seed}") for seed in range(2))
    work = PredictionWork(images, places, options)
    alone = list(predict_photographs(work, keys, num_shown=3, workers=in_process))
    assert [row.file for rows in alone for row in rows] == keys and len(alone) == 7

    one, two = (partial(on_ray, pool=PoolConfig(min_workers=number)) for number in (1, 2))
    for workers in (one, two):
        assert list(predict_photographs(work, keys, num_shown=3, workers=workers)) == alone
    lost = dataclasses.replace(work, where=Whereabouts(model=str(tmp_path / "nowhere")))
    message = r"A worker stopped: FileNotFoundError: The backbone of .*seed0 is not at .*nowhere"
    with pytest.raises(RuntimeError, match=message):
        list(predict_photographs(lost, keys, workers=one))
