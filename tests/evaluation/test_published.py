import numpy as np
import pytest

from t2ipal.evaluation.published import PUBLISHED


def test_published():
    def find(setting: str, method: str, test_set: str, **fields: object) -> list[float]:
        return [
            row.mAP
            for row in PUBLISHED
            if (row.setting, row.method, row.test_set) == (setting, method, test_set)
            and all(getattr(row, name) == value for name, value in fields.items())
        ]

    assert find("zero_shot", "T2I-PAL", "coco2014", backbone="RN101") == [71.4]
    assert find("zero_shot", "TaI-DPT", "nuswide", backbone="RN50") == [46.5]
    assert find("partial_labels", "SARB", "voc2007", amount=90) == [92.9]
    assert find("few_shot", "CoOp + T2I-PAL", "coco2014", amount=16) == [74.1]
    assert find("novel_classes", "T2I-PAL", "coco2014", amount=0) == [66.3]
    assert len(set(PUBLISHED)) == len(PUBLISHED)
    for method in ("SARB", "DualCoOp (rerun)", "DualCoOp + TaI-DPT"):
        values = find("partial_labels", method, "coco2014")
        (mean,) = find("partial_labels_mean", method, "coco2014")
        assert len(values) == 9 and np.mean(values) == pytest.approx(mean, abs=0.06)
