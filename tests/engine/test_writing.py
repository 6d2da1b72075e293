from t2ipal.captions import load_vocabulary
from t2ipal.captions.tasks import WritingConfig, make_task
from t2ipal.captions.written import WritingWork, in_process
from t2ipal.engine.writing import on_ray
from t2ipal.pools import PoolConfig


def test_the_same_texts_in_the_same_order_on_ray(ray_session):
    work = WritingWork("grammar", load_vocabulary("voc2007"), WritingConfig(seed=1))
    tasks = [make_task(number, 0, (number % 20,), 1) for number in range(6)]
    parts = [tasks[:3], tasks[3:5], tasks[5:]]
    alone = list(in_process(work, parts))
    assert [len(texts) for texts in alone] == [3, 2, 1]
    assert list(on_ray(work, parts, PoolConfig(min_workers=1))) == alone
