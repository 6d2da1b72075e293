import re

from t2ipal.recognition.rows import Prediction
from t2ipal.report.contact_sheet import ContactSheet


def seen(name, thumbnail="QUJD", labels=("dog", "<cat>"), scores=(0.51234, -1.0)):
    return Prediction(name, labels, scores, 640, 480, "ok", "", (), thumbnail)


def failed(name, reason="not an image"):
    return Prediction(name, (), (), 0, 0, "failed", reason)


def rendered(predictions, max_images=200):
    sheet = ContactSheet(max_images)
    for start in range(0, len(predictions), 3):
        sheet.add(predictions[start : start + 3])
    return sheet.render("/photos", ["t2ipal-seed0"])


def test_pictures_with_labels_and_scores():
    page = rendered([seen("a.jpg"), seen("b.jpg", labels=(), scores=())])
    assert page.count('src="data:image/jpeg;base64,QUJD"') == 2
    assert '<span>dog</span><span class="number">0.512</span>' in page
    assert '<span>&lt;cat&gt;</span><span class="number">-1.000</span>' in page
    assert "a.jpg · 640\u00a0×\u00a0480" in page and "no label" in page
    assert "2 photographs. Labels and scores of t2ipal-seed0." in page
    assert "Could not be read" not in page


def test_nothing_is_loaded_run_or_left_unescaped():
    name = '"><script>alert(1)</script>.jpg'
    page = rendered([seen(name), failed(name, "<img src=x onerror=y>")])
    assert "<script" not in page and "<img src=x" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "prefers-color-scheme: dark" in page


def test_failures_are_named_with_their_reasons():
    page = rendered([failed("x.jpg", "truncated"), seen("a.jpg"), failed("y.jpg")])
    assert "3 photographs; 2 of them could not be read." in page
    assert '<span>x.jpg</span><span class="reason">truncated</span>' in page
    assert '<span>y.jpg</span><span class="reason">not an image</span>' in page
    assert "data:image" in page
    assert "data:image/jpeg" not in rendered([failed("x.jpg")])


def test_at_most_so_many():
    predictions = [seen(f"{i}.jpg", "QUJD" if i < 4 else "") for i in range(1500)]
    predictions += [failed(f"f{i}.jpg") for i in range(9)]
    page = rendered(predictions, max_images=4)
    assert page.count("data:image/jpeg") == 4 and "3.jpg" in page and ">4.jpg" not in page
    assert "1,509 photographs; 9 of them could not be read; the first 4 are shown." in page
    assert page.count('class="reason"') == 4 and "And 5 more." in page
