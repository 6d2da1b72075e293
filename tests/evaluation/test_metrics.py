import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from t2ipal.evaluation.metrics import (
    accuracy,
    average_precision,
    class_accuracy,
    mean_average_precision,
    pointing_game,
)


def slow_average_precision(scores, labels, skipped, eleven_point):
    rows = [row for row in range(len(scores)) if not skipped[row]]
    rows = sorted(rows, key=lambda row: -scores[row])  # Python's sort is stable too
    precisions, recalls, found = [], [], 0
    positives = sum(labels[row] for row in rows)
    for rank, row in enumerate(rows, start=1):
        found += labels[row]
        precisions.append(found / rank)
        recalls.append((found, positives))
    if not eleven_point:
        hits = [p for p, row in zip(precisions, rows) if labels[row]]
        return 100 * sum(hits) / len(hits)
    best = [
        max(p for p, (found, total) in zip(precisions, recalls) if 10 * found >= tenth * total)
        for tenth in range(11)
    ]
    return 100 * sum(best) / 11


@pytest.mark.parametrize("eleven_point", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_against_slow_reference(seed, skip, eleven_point):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((60, 7)), 1)  # many ties
    labels = (rng.random((60, 7)) < 0.3).astype(int)
    difficult = rng.random((60, 7)) < 0.1
    result = average_precision(
        scores, labels, difficult=difficult, skip_difficult=skip, eleven_point=eleven_point
    )
    expected = [
        slow_average_precision(
            scores[:, c], labels[:, c] * ~difficult[:, c], difficult[:, c] & skip, eleven_point
        )
        for c in range(7)
    ]
    assert np.allclose(result, expected, rtol=0, atol=1e-12)
    assert mean_average_precision(
        scores, labels, difficult=difficult, skip_difficult=skip, eleven_point=eleven_point
    ) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("rows", [3, 50, 2000])
def test_without_ties_it_is_scikit_learns(rows):
    rng = np.random.default_rng(rows)
    scores, labels = rng.permutation(rows * 6).reshape(rows, 6) / 7, rng.random((rows, 6)) < 0.2
    labels[0] = True
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(6)]
    assert np.allclose(average_precision(scores, labels) / 100, expected, rtol=0, atol=1e-12)


def test_of_equal_scores_the_first_row_ranks_first():
    scores = np.zeros((4, 2))
    labels = [[1, 0], [0, 0], [0, 0], [0, 1]]
    assert average_precision(scores, labels).tolist() == [100, 25]
    assert average_precision(scores[::-1], labels[::-1]).tolist() == [25, 100]


def test_by_hand():
    scores = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    labels = [[1, 0], [0, 0], [1, 1]]
    assert average_precision(scores, labels) == pytest.approx([100 * (1 + 2 / 3) / 2, 100.0])
    difficult = [[0, 0], [1, 0], [0, 0]]
    assert average_precision(scores, labels, difficult=difficult)[0] == pytest.approx(500 / 6)
    skipped = average_precision(scores, labels, difficult=difficult, skip_difficult=True)
    assert skipped[0] == pytest.approx(100)
    # Recall 0 to 0.5 at precision 1, 0.6 to 1 at precision 2/3.
    eleven = average_precision(scores, labels, eleven_point=True)
    assert eleven[0] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_eleven_point_does_not_miss_a_tenth():
    # 3 of 10 are found at rank 3; 3 * 0.1 > 0.3 in floating point.
    labels = np.array([1] * 3 + [0] * 20 + [1] * 7)[:, None]
    scores = -np.arange(30.0)[:, None]
    assert average_precision(scores, labels, eleven_point=True)[0] == pytest.approx(
        100 * (4 * 1 + 7 * 10 / 30) / 11
    )


def test_difficult_entries_are_negatives_whatever_their_label():
    scores, difficult = [[0.9], [0.5]], [[1], [0]]
    assert average_precision(scores, [[1], [1]], difficult=difficult)[0] == pytest.approx(50)
    assert average_precision(scores, [[0], [1]], difficult=difficult)[0] == pytest.approx(50)


def test_ties_keep_row_order():
    assert average_precision([[0.5], [0.5]], [[1], [0]])[0] == pytest.approx(100)
    assert average_precision([[0.5], [0.5]], [[0], [1]])[0] == pytest.approx(50)


def test_classes_that_no_image_shows():
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.6], [0.7, 0.3, 0.7]])
    labels = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]])
    result = average_precision(scores, labels, skip_absent=True)
    assert np.isnan(result[1])
    shown = average_precision(scores[:, [0, 2]], labels[:, [0, 2]])
    assert result[[0, 2]].tolist() == shown.tolist()
    assert mean_average_precision(scores, labels, skip_absent=True) == shown.mean()
    difficult = np.zeros((3, 3), bool)
    difficult[0, 2] = True  # its only one
    result = average_precision(scores, labels, difficult=difficult, skip_absent=True)
    assert np.isnan(result).tolist() == [False, True, True]
    message = "No image shows any of the classes: class 0, class 1, class 2"
    with pytest.raises(ValueError, match=message):
        average_precision(scores, 0 * labels, skip_absent=True)


def test_one_class_alone():
    assert mean_average_precision([[0.1], [0.9]], [[1], [0]]) == 50
    assert mean_average_precision([[0.1], [0.9]], [[1], [1]]) == 100


def test_bad_input():
    good = np.array([[0.1, 0.2], [0.3, 0.4]])
    labels = np.array([[1, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"one shape, got \(2, 2\) and \(2, 1\)"):
        mean_average_precision(good, labels[:, :1])
    with pytest.raises(ValueError, match="one shape"):
        mean_average_precision(good[0], labels[0])
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 2\) and \(1, 2\)"):
        mean_average_precision(good, labels, difficult=labels[:1])
    with pytest.raises(ValueError, match="NaN, got 1 of them, the first at row 1 for boat"):
        mean_average_precision([[1, 1], [1, np.nan]], labels, class_names=("bird", "boat"))
    with pytest.raises(ValueError, match=r"0 or 1, got -1"):
        mean_average_precision(good, labels * 2 - 1)
    with pytest.raises(ValueError, match="got none of: boat"):
        mean_average_precision(good, [[1, 0], [1, 0]], class_names=("bird", "boat"))
    with pytest.raises(ValueError, match="got none of: boat"):
        mean_average_precision(
            good, labels, difficult=[[0, 0], [0, 1]], class_names=("bird", "boat")
        )
    with pytest.raises(ValueError, match="class_names must name 2 classes, got 1"):
        mean_average_precision(good, labels, class_names=("bird",))
    with pytest.raises(ValueError, match="must be images"):
        mean_average_precision(np.zeros((0, 2)), np.zeros((0, 2)))


def test_pointing_game_by_hand():
    """Two images, two classes, a grid of 2 x 2 whose centers lie at 0.25 and 0.75."""
    heatmaps = np.zeros((2, 2, 4))
    heatmaps[0, 0, 1] = 1  # top right
    heatmaps[1, 0, 2] = 1  # bottom left
    heatmaps[0, 1] = 5  # everywhere alike: the first, top left, counts
    top_right, left, sliver = (0.5, 0.0, 1.0, 0.5), (0.0, 0.0, 0.25, 1.0), (0.4, 0.4, 0.6, 0.6)
    boxes = [{0: [top_right], 1: [left]}, {0: [top_right, sliver], 1: [sliver]}]
    # Class 0: hit, miss (1/4, 1/4, reachable). Class 1: hit on the edge (2/4); miss, unreachable.
    assert pointing_game(heatmaps, boxes, 2) == pytest.approx((50, 25, 75))
    boxes[1][1] = [(0.0, 0.0, 1.0, 1.0)]
    assert pointing_game(heatmaps, boxes, 2) == pytest.approx((75, 50, 100))


def test_pointing_game_against_a_loop():
    rng = np.random.default_rng(0)
    heatmaps = rng.random((40, 3, 25))
    corners = rng.random((40, 3, 2, 2))
    boxes, hits = [], {0: [], 1: [], 2: []}
    for image in range(40):
        boxes.append({})
        for index in range(3):
            if rng.random() < 0.3:
                continue
            low, high = corners[image, index].min(axis=0), corners[image, index].max(axis=0)
            boxes[-1][index] = [(*low, *high)]
            best = max(range(25), key=lambda place: heatmaps[image, index, place])
            center = np.array([best % 5 + 0.5, best // 5 + 0.5]) / 5
            hits[index].append(bool((low <= center).all() and (center <= high).all()))
    result = pointing_game(heatmaps, boxes, 5)
    assert result.accuracy == pytest.approx(100 * np.mean([np.mean(h) for h in hits.values()]))
    # What is drawn at random, many times over, reaches chance.
    drawn = [pointing_game(rng.random((40, 3, 25)), boxes, 5).accuracy for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(result.chance, abs=1)
    assert result.chance < result.ceiling <= 100


def test_pointing_game_of_bad_input():
    boxes = [{0: [(0.0, 0.0, 1.0, 1.0)]}]
    with pytest.raises(
        ValueError, match=r"\[1 images, classes, 3 x 3 locations\], got \(1, 1, 4\)"
    ):
        pointing_game(np.zeros((1, 1, 4)), boxes, 3)
    with pytest.raises(ValueError, match=r"\[1 images, .* got \(2, 1, 4\)"):
        pointing_game(np.zeros((2, 1, 4)), boxes, 2)
    with pytest.raises(ValueError, match="must not be NaN"):
        pointing_game(np.full((1, 1, 4), np.nan), boxes, 2)
    with pytest.raises(ValueError, match=r"a box of every class, got none of: \[1\]"):
        pointing_game(np.zeros((1, 2, 4)), boxes, 2)


def test_accuracy_by_hand():
    scores = [[0.9, 0.1, 0.0], [0.2, 0.2, 0.1], [0.3, 0.4, 0.2], [0.1, 0.2, 0.7]]
    labels = np.eye(4, 3, dtype=np.uint8)[[0, 1, 1, 0]]
    assert accuracy(scores, labels) == 50.0  # of equal scores the first class counts
    assert class_accuracy(scores, labels)[:2].tolist() == [50.0, 50.0]
    assert np.isnan(class_accuracy(scores, labels)[2])
    labels[3] = 0
    with pytest.raises(ValueError, match="got 1 images of none or of several, the first at row 3"):
        accuracy(scores, labels)
    with pytest.raises(ValueError, match="must not be NaN"):
        accuracy([[np.nan, 0.0]], [[1, 0]])
