"""Batches: each worker's own rows alone, the same from memory as from files."""

import torch
from fake_clip import FakeClip, config, training_features
from stored_table import stored_table

from t2ipal.features.sets import TrainingFeatures
from t2ipal.features.table import StoredFeatures
from t2ipal.store import Store
from t2ipal.training.batches import Share, epoch_batches
from t2ipal.training.loop import TrainingConfig, fit

CPU = torch.device("cpu")
ORDER = torch.tensor([3, 1, 4, 0, 2, 6, 5])
IMAGE_OF = torch.tensor([8, -1, 2, 5, -1, 7, 0])
"""Of the captions in that order."""


def batches(data, size, rank=0, world_size=1, uses_images=True, uses_texts=True):
    share = Share(rank, world_size, CPU, uses_images, uses_texts)
    image_of = torch.full((len(data.texts),), -1)
    image_of[ORDER] = IMAGE_OF
    return list(epoch_batches(data, ORDER, image_of, size, share))


def test_the_batches_of_an_epoch():
    data = training_features(7, k=2)
    first, second, third = batches(data, 3)
    assert [batch.num_texts for batch in (first, second, third)] == [3, 3, 1]
    assert [batch.num_images for batch in (first, second, third)] == [2, 2, 1]
    assert torch.equal(first.texts.local_features, data.texts.local_features[[3, 1, 4]])
    assert torch.equal(second.images.global_features, data.images.global_features[[5, 7]])
    assert third.images.labels.tolist() == data.images.labels[[0]].tolist()


def test_workers_share_each_batch():
    data = training_features(7, k=2)
    whole, parts = batches(data, 3), [batches(data, 3, rank, 2) for rank in range(2)]
    for at, batch in enumerate(whole):
        mine = [part[at] for part in parts]
        assert {part.num_texts for part in mine} == {batch.num_texts}
        assert {part.num_images for part in mine} == {batch.num_images}
        assert torch.equal(mine[0].texts.labels, batch.texts.labels[::2])
        assert torch.equal(mine[1].texts.labels, batch.texts.labels[1::2])
        assert sum(len(part.images) for part in mine) == len(batch.images)
    assert len(parts[1][2].texts) == len(parts[1][2].images) == 0  # there is one caption alone


def test_what_is_not_used_is_not_read():
    class Forbidden:
        def rows(self, *_):
            raise AssertionError

    data = training_features(7)
    (batch,) = batches(TrainingFeatures(data.texts, Forbidden(), data.image_of_caption), 9,
                       uses_images=False)  # fmt: skip
    assert batch.images is None and len(batch.texts) == 7
    (batch,) = batches(data, 9, uses_texts=False)
    assert batch.texts is None and len(batch.images) == 5


def test_a_worker_reads_its_own_rows_alone(tmp_path, monkeypatch):
    """One image a caption, half of them with two workers."""
    data, seen = training_features(40, k=3), []
    images = stored_table(Store(tmp_path), data.images, [30] * 4, folder="images")
    rows = StoredFeatures.rows

    def noted(self, index, device="cpu"):
        seen.extend(index.tolist())
        return rows(self, index, device)

    monkeypatch.setattr(StoredFeatures, "rows", noted)
    share = Share(0, 2, CPU, True, False)
    image_of = data.image_of_caption[:, 2]
    list(epoch_batches(TrainingFeatures(data.texts, images, data.image_of_caption),
                       torch.arange(40), image_of, 7, share))  # fmt: skip
    mine = torch.cat([part[::2] for part in image_of.split(7)])
    assert seen == mine[mine >= 0].tolist()


def test_training_from_files_is_the_same_to_the_bit(tmp_path):
    data, store = training_features(40, k=2), Store(tmp_path)
    texts = stored_table(store, data.texts, [7, 13, 1, 19], folder="texts")
    images = stored_table(store, data.images, [40, 3, 37], folder="images")
    training = TrainingConfig(num_epochs=3, batch_size=9)
    results = []
    for ours, theirs in ((texts, images), (texts.held(), images.held())):
        rows = TrainingFeatures(ours, theirs, data.image_of_caption)
        method = config(residual="learnable").build(FakeClip(), 0)
        results.append((fit(method, rows, training), method.state_dict()))
    (mapped, state), (held, other) = results
    assert mapped.history == held.history
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def test_an_error_of_reading_reaches_the_step(tmp_path):
    data, store = training_features(20), Store(tmp_path)
    texts = stored_table(store, data.texts, [10, 10], folder="texts")
    store.delete("texts/1")
    rows = TrainingFeatures(texts, None, data.image_of_caption)
    try:
        list(epoch_batches(rows, torch.arange(20), torch.full((20,), -1), 4,
                           Share(0, 1, CPU, True, True)))  # fmt: skip
    except FileNotFoundError as error:
        assert "texts/1 in" in str(error) and "is gone" in str(error)
    else:
        raise AssertionError
