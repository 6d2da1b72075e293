import hashlib
import json
import re

from t2ipal.dashboard.page import FOLDER, SCRIPTS, assets, script, whole_page


def test_every_module_of_the_page_is_in_it():
    there = {path.name for path in FOLDER.glob("*.js")} - {"echarts.min.js"}
    assert there == {*SCRIPTS}
    assert not re.search(r"^(import|export) ", script(), re.M)


def test_modules_come_after_those_they_import():
    for place, name in enumerate(SCRIPTS):
        imported = re.findall(r'from "\./(.+?)"', (FOLDER / name).read_text())
        assert {*imported} <= {*SCRIPTS[:place]}, name


def test_no_module_is_too_long():
    for path in [*FOLDER.glob("*.js"), FOLDER / "page.css", FOLDER / "page.html"]:
        assert len(path.read_text().splitlines()) <= 500, path


def test_echarts_is_the_official_file():
    digest = hashlib.sha256((FOLDER / "echarts.min.js").read_bytes()).hexdigest()
    assert digest in (FOLDER / "echarts.license.txt").read_text()


def test_nothing_is_made_from_markup():
    ours = script()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", ours)


def test_what_a_file_holds_cannot_end_its_element():
    content = {"note": "</script><!-- <b>"}
    page = whole_page(content)
    data = page.split('id="embedded">')[1].split("</script>")[0]
    assert "<" not in data and json.loads(data) == content
    assert 'src="' not in page.split("<body>")[0]


def test_each_file_has_a_tag_of_its_content():
    tags = [asset.tag for asset in assets().values()]
    assert len({*tags}) == len(tags) == 4
