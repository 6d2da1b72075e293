"""COCO's instances as other tools write them."""

import json

import pytest

from t2ipal.evaluation.instances import holds_instances, read_instances
from t2ipal.store import Store


@pytest.fixture
def put(tmp_path):
    """Writes a json with three images and two categories, with changes by `images__0__id`."""

    def write(**changes):
        content = {
            "images": [{"id": at, "file_name": f"{at}.jpg"} for at in (2, 0, 1)],
            "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
            "annotations": [
                {"image_id": 2, "category_id": 18, "iscrowd": 0},
                {"image_id": 2, "category_id": 3, "iscrowd": 1},
                {"image_id": 0, "category_id": 18},
            ],
        }
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = content
            for parent in parents:
                place = place[int(parent) if parent.isdigit() else parent]
            if last == "append":
                place.append(value)
            elif value is ...:
                del place[last]
            else:
                place[int(last) if last.isdigit() else last] = value
        store = Store(tmp_path)
        store.write("a.json", json.dumps(content).encode())
        return store

    return write


COLUMNS = {3: 0, 18: 1}
RIGHT = [[0, 1], [0, 0], [1, 1]]


def labels(store):
    instances = read_instances(store, "a.json")
    assert list(instances.files.values()) == ["0.jpg", "1.jpg", "2.jpg"]
    assert instances.categories == {3: "car", 18: "dog"}
    return instances.labels(COLUMNS, 2).tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"images__0__id": "2"},
        {"images__0__id": "002", "annotations__0__image_id": 2.0},
        {"annotations__0__image_id": " 2 ", "annotations__1__image_id": "2.0"},
        {"categories__0__id": "18", "annotations__2__category_id": 18.0},
        {"images__0__file_name": ..., "images__0__coco_url": "http://x.org/val2017/2.jpg?size=1"},
        {"images__append": {"id": 1, "file_name": "1.jpg"}},
        {"info": None, "licenses": [None]},
    ],
)
def test_the_same_in_other_words(put, changes):
    assert labels(put(**changes)) == RIGHT


@pytest.mark.parametrize("annotations", [None, ..., []])
def test_images_without_any(put, annotations):
    assert labels(put(annotations=annotations)) == [[0, 0]] * 3


def test_ids_of_any_kind(put):
    huge = 10**30
    store = put(images__0__id=huge, images__1__id="x/0", annotations=[])
    assert list(read_instances(store, "a.json").files) == [1, huge, "x/0"]


def test_a_category_that_is_no_class(put):
    instances = read_instances(put(), "a.json")
    assert instances.labels({3: None, 18: 0}, 1).tolist() == [[1], [0], [1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images__1__id": ...}, r"images\[1\]: id must be a whole number or a text, got 'None'"),
        ({"images__1__id": True}, r"images\[1\]: id must be a whole number or a text, got 'True'"),
        ({"images__1__id": 1.5}, r"images\[1\]: id must be a whole number or a text, got '1.5'"),
        ({"images__1__id": [1]}, r"images\[1\]: id must be a whole number or a text, got '\[1\]'"),
        ({"images__1__id": "2"}, r"images\[1\] has the id of another image"),
        ({"images__append": None}, r"images\[3\] must be a mapping, got None"),
        ({"images__1__file_name": ...}, r"images\[1\] has no file_name"),
        ({"images__1__file_name": 7}, r"images\[1\] has no file_name"),
        ({"images": {"id": 1}}, "must be MS-COCO instances with a list 'images'"),
        ({"categories": None}, "must be MS-COCO instances with a list 'categories'"),
        ({"categories__0__name": ...}, r"categories\[0\] has no name"),
        ({"categories__0__id": 3}, r"categories\[1\] has the id of another category"),
        ({"categories__append": "dog"}, r"categories\[2\] must be a mapping, got dog"),
        ({"annotations__append": None}, r"annotations\[3\] must be a mapping, got None"),
        ({"annotations__1__image_id": 9}, r"annotations\[1\] names an image or a category that is"),
        ({"annotations__1__category_id": None}, r"annotations\[1\]: category_id must be a whole"),
    ],
)
def test_what_cannot_be_read_is_named(put, changes, message):
    with pytest.raises(ValueError, match=r"/a\.json.*" + message):
        read_instances(put(**changes), "a.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"images": ' + "9" * 5_000 + "}", "\xe9"]
)
def test_what_is_no_json_is_named(tmp_path, text):
    store = Store(tmp_path)
    store.write("a.json", text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"/a\.json is no valid JSON"):
        read_instances(store, "a.json")
    assert not holds_instances(store, "a.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_at_the_start(put, encoding):
    store = put()
    store.write("a.json", store.read("a.json").decode().encode(encoding))
    assert labels(store) == RIGHT and holds_instances(store, "a.json")


def test_what_holds_instances(put):
    assert holds_instances(put(annotations=None), "a.json")
    assert not holds_instances(put(categories=...), "a.json")
