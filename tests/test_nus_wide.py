"""NUS-WIDE from a tiny copy of its official layout."""

import pytest
from tiny_archives import jpeg, write_folder

from modal_aware_jax.data import nus_wide
from modal_aware_jax.data.problems import DataProblems

NAMES = ["actor/0001_11", "actor/0002_12", "zoo/0001_13", "zoo/0002_14", "zoo/0003_15"]
TAGS = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]]
LABELS = {
    "sky": [1, 1, 0, 1, 0],
    "sea": [0, 1, 1, 0, 0],
    "cow": [0, 0, 1, 0, 1],
    "sun": [0, 0, 0, 0, 1],
}


def files(**change):
    """The official files; `change` replaces one by its name."""
    rows = "".join("\t".join(map(str, row)) + "\t\r\n" for row in TAGS)
    folders = {name: name.replace("/", "\\") + ".jpg\r\n" for name in NAMES}
    result = {
        "ImageList/Imagelist.txt": "".join(folders.values()),
        "NUS_WID_Tags/AllTags1k.txt": rows,
        "NUS_WID_Tags/TagList1k.txt": "nature\nwater\nred\n",
        **{
            f"Groundtruth/AllLabels/Labels_{label}.txt": "\r\n".join(map(str, values))
            for label, values in LABELS.items()
        },
    }
    result = {name: content.encode() for name, content in result.items()}
    for seed, name in enumerate(NAMES):
        result[f"Flickr/{name}.jpg"] = jpeg(seed)
    for name, content in change.items():
        (match,) = [key for key in result if key.endswith(f"{name}.txt")]
        result.pop(match)
        if content is not None:
            result[match] = content.encode()
    return result


@pytest.fixture
def load(tmp_path):
    def load(**options):
        options = {"progress": False, "num_labels": 3, **options}
        prepared_dir = tmp_path / "prepared"
        return nus_wide.load(tmp_path / "data", prepared_dir=prepared_dir, **options)

    return load


def test_the_official_files_give_the_pairs(tmp_path, load):
    write_folder(tmp_path / "data", files())
    pairs = load()
    assert pairs.label_names == ("cow", "sea", "sky")  # the three most frequent
    assert pairs.ids.tolist() == NAMES
    assert pairs.labels.tolist() == [[0, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]] + [
        [1, 0, 0]
    ]
    assert pairs.vocabulary == ("nature", "water", "red")
    assert pairs.text.tolist() == TAGS
    assert list(pairs.captions)[:3] == ["nature, red", "water", ""]
    assert pairs.images[3] == jpeg(3)


def test_pairs_without_a_label_or_without_a_tag_are_left_out(tmp_path, load):
    write_folder(tmp_path / "data", files())
    assert load(num_labels=1).ids.tolist() == [NAMES[0], NAMES[1], NAMES[3]]
    pairs = load(label_names=["sea", "sun"], keep_untagged=False)
    assert pairs.ids.tolist() == [NAMES[1], NAMES[4]]
    assert pairs.labels.tolist() == [[1, 0], [0, 1]]


def test_training_and_test_tags_are_put_in_order(tmp_path, load):
    content = files(AllTags1k=None)
    for part, rows in (("Train", [4, 0, 2]), ("Test", [3, 1])):
        lines = "".join(NAMES[i].replace("/", "\\") + ".jpg\n" for i in rows)
        tags = "".join(" ".join(map(str, TAGS[i])) + "\n" for i in rows)
        content[f"ImageList/{part}Imagelist.txt"] = lines.encode()
        content[f"NUS_WID_Tags/{part}_Tags1k.dat"] = tags.encode()
    write_folder(tmp_path / "data", content)
    assert load().text.tolist() == TAGS


def test_images_may_all_lie_in_one_folder(tmp_path, load):
    content = files()
    for seed, name in enumerate(NAMES):
        del content[f"Flickr/{name}.jpg"]
        content[f"images/{name.replace('/', '_')}.jpg"] = jpeg(seed)
    write_folder(tmp_path / "data", content)
    with pytest.raises(DataProblems, match="5 problems"):
        load()  # named with their folder: not the names of the list
    for seed, name in enumerate(NAMES):
        (tmp_path / "data/images" / f"{name.split('/')[1]}.jpg").write_bytes(jpeg(seed))
    assert len(load().images[0]) == len(jpeg(0))


def test_malformed_lines_are_named_with_file_and_line(tmp_path, load):
    rows = ["1\t0\t1", "0\t1", "0\t0\t0", "1\t2\t1", "0\t0\t1"]
    write_folder(
        tmp_path / "data",
        files(AllTags1k="\n".join(rows), Labels_cow="0\n0\nx\n0\n1\n"),
    )
    with pytest.raises(DataProblems) as caught:
        load()
    tags = tmp_path / "data/NUS_WID_Tags/AllTags1k.txt"
    cow = tmp_path / "data/Groundtruth/AllLabels/Labels_cow.txt"
    assert [(p.where, p.message) for p in caught.value.problems] == [
        (f"{cow} line 3", "'x' is neither 0 nor 1"),
        (f"{tags} line 2", "2 values, but there are 3 tags"),
        (f"{tags} line 4", "has a value that is neither 0 nor 1"),
    ]
    assert load(on_problem="skip").ids.tolist() == [NAMES[0], NAMES[4]]


def test_an_image_that_is_missing_or_listed_twice(tmp_path, load):
    content = files(Imagelist="\n".join(f"{n}.jpg" for n in [*NAMES[:4], NAMES[0]]))
    del content[f"Flickr/{NAMES[1]}.jpg"]
    write_folder(tmp_path / "data", content)
    with pytest.raises(DataProblems) as caught:
        load()
    found = {problem.kind: problem.where for problem in caught.value.problems}
    assert found["duplicate id"].endswith("Imagelist.txt line 5")
    assert "actor/0002_12.jpg" in found["missing image"]


def test_files_that_do_not_fit_together_or_are_missing(tmp_path, load):
    write_folder(tmp_path / "data", files(Labels_cow="0\n1\n"))
    with pytest.raises(DataProblems, match=r"Labels_cow.txt: 2 lines, but .* has 5"):
        load(on_problem="skip")
    with pytest.raises(ValueError, match="no file of labels for 'dragon'; there are"):
        load(label_names=["dragon"])
    with pytest.raises(ValueError, match="between 1 and .* 4; got 21"):
        load(num_labels=21)
    (tmp_path / "data/ImageList/Imagelist.txt").unlink()
    (tmp_path / "data/NUS_WID_Tags/AllTags1k.txt").unlink()
    with pytest.raises(DataProblems) as caught:
        load()
    assert "there is no ImageList/Imagelist.txt" in str(caught.value)
    assert "there is no NUS_WID_Tags/AllTags1k.txt" in str(caught.value)
