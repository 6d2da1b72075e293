import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from t2ipal.evaluation.protocols import (
    MASKS,
    NOVEL_COCO,
    NOVEL_PICTOVOC,
    NUM_EPISODES,
    episodes_of,
    few_shot_rows,
    known_from,
    read_episodes,
    read_masks,
)
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.training.recipes import SCHEDULES

LASO = Path(__file__).parents[3] / "shared" / "data" / "laso" / "episodes.json"
LABELS = (np.random.default_rng(0).random((200, 5)) < 0.2).astype(np.uint8)
MASK = np.random.default_rng(1).random((6, 3)) < 0.4


def test_few_shots():
    one, four = few_shot_rows(LABELS, 1, 0), few_shot_rows(LABELS, 4, 0)
    for shots, rows in ((1, one), (4, four)):
        assert (LABELS[rows].sum(axis=0) >= shots).all() and len(rows) <= shots * 5
        assert np.array_equal(rows, np.unique(rows)) and rows.dtype == np.int64
    assert {*one} <= {*four}
    assert np.array_equal(four, few_shot_rows(torch.from_numpy(LABELS).float(), 4, 0))
    assert not np.array_equal(four, few_shot_rows(LABELS, 4, 1))
    with pytest.raises(
        ValueError, match="3 shots need as many images of every class, class 1 has 1"
    ):
        few_shot_rows([[1, 0], [1, 0], [1, 1]], 3, 0)
    with pytest.raises(ValueError, match="shots must be > 0, got 0"):
        few_shot_rows(LABELS, 0, 0)


def test_all_images_of_a_class_are_drawn_equally():
    drawn = np.zeros(200)
    for seed in range(400):
        drawn[few_shot_rows(LABELS[:, :1], 1, seed)] += 1
    shown = LABELS[:, 0] == 1
    assert drawn[~shown].sum() == 0 and (drawn[shown] > 0).all()
    assert drawn[shown].std() == pytest.approx(drawn[shown].mean() ** 0.5, rel=0.4)


def test_masks_are_those_of_the_literature():
    np.random.seed(0)
    theirs = np.random.random((5011, 20))
    ours = known_from(5011, 20)
    assert ours.dtype == np.float64 and np.array_equal(ours, theirs)
    assert np.mean(ours < 0.1) == pytest.approx(0.1, abs=0.005)
    assert not np.array_equal(known_from(9, 2), known_from(9, 2, seed=1))
    assert {*MASKS} == {*SCHEDULES}


def test_episodes_of_novel_classes():
    novel = (1, 3)
    for shots in (1, 5):
        episodes = episodes_of(LABELS, novel, shots)
        assert len(episodes) == NUM_EPISODES
        for rows in episodes:
            assert (LABELS[rows][:, novel].sum(axis=0) >= shots).all()
        assert len({rows.tobytes() for rows in episodes}) > NUM_EPISODES / 2
        again = episodes_of(LABELS, novel, shots)
        assert all(np.array_equal(a, b) for a, b in zip(episodes, again))
    names = [CLASS_NAMES[index] for index in NOVEL_PICTOVOC]
    assert names == ["bottle", "bus", "cow", "sofa"] and len({*NOVEL_COCO}) == 16


def test_episodes_in_a_file(tmp_path):
    path = tmp_path / "episodes.json"
    path.write_text(json.dumps({"episodes": {"1": [[4, 2], [7]], "5": [[0, 1, 2]]}}))
    episodes = read_episodes(path)
    assert {n: [rows.tolist() for rows in each] for n, each in episodes.items()} == {
        1: [[4, 2], [7]],
        5: [[0, 1, 2]],
    }
    for text in ("[]", '{"episodes": {"1": [["a"]]}}', '{"episodes": {"one": [[1]]}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r'episodes\.json must hold "episodes"'):
            read_episodes(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no valid JSON"):
        read_episodes(path)
    with pytest.raises(FileNotFoundError, match=r"No file .*nothing\.json"):
        read_episodes(tmp_path / "nothing.json")


@pytest.mark.skipif(not LASO.is_file(), reason=f"no episodes in {LASO}")
def test_episodes_of_laso():
    episodes = read_episodes(LASO)
    assert {shots: len(each) for shots, each in episodes.items()} == {1: 10, 5: 10}
    assert max(rows.max() for each in episodes.values() for rows in each) < 82_783


def write_masks(folder: Path) -> dict[str, Path]:
    """The same masks in all forms."""
    labels = np.where(MASK, np.where(np.arange(3) == 1, 1, -1), 0)
    np.save(folder / "a.npy", MASK)
    np.savez(folder / "a.npz", mask=labels)
    torch.save(torch.from_numpy(MASK).long()[:, None].repeat(1, 3, 1), folder / "a.pt")
    savemat(folder / "a.mat", {"mask": MASK.astype(np.uint8)})
    np.savetxt(folder / "a.txt", labels, fmt="%d")
    np.savetxt(folder / "a.csv", MASK.astype(int), fmt="%d", delimiter=",")
    return {path.suffix: path for path in folder.iterdir()}


def test_masks_in_files(tmp_path):
    paths = write_masks(tmp_path)
    assert len(paths) == 6
    for path in paths.values():
        assert np.array_equal(read_masks(path, (6, 3)), MASK), path
    with pytest.raises(ValueError, match=r"a\.npy must hold masks of \(7, 3\) images and"):
        read_masks(paths[".npy"], (7, 3))


def test_bad_files_of_masks(tmp_path):
    np.save(tmp_path / "object.npy", np.array([print, None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"object\.npy cannot be read as masks: .*allow_pickle"):
        read_masks(tmp_path / "object.npy")
    torch.save({"mask": Path}, tmp_path / "object.pt")
    with pytest.raises(ValueError, match=r"object\.pt cannot be read as masks: Weights only"):
        read_masks(tmp_path / "object.pt")
    np.save(tmp_path / "shares.npy", np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"must hold 0 and 1 .* got 0\.5\."):
        read_masks(tmp_path / "shares.npy")
    np.savez(tmp_path / "two.npz", a=MASK, b=MASK)
    with pytest.raises(ValueError, match="must hold one array, got a, b"):
        read_masks(tmp_path / "two.npz")
    np.save(tmp_path / "flat.npy", np.ones(4))
    with pytest.raises(ValueError, match=r"must be \[images, classes\], got shape \(4,\)"):
        read_masks(tmp_path / "flat.npy")
    (tmp_path / "cut.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"cut\.mat cannot be read as masks"):
        read_masks(tmp_path / "cut.mat")
    with pytest.raises(ValueError, match=r"Masks must be a file of \.npy, .*, got masks\.pkl"):
        read_masks("masks.pkl")
