"""Flickr8k, Flickr30k and Karpathy's files from tiny copies of their layouts."""

import json
import zipfile

import pytest
from tiny_archives import jpeg, write_folder, write_zip

from modal_aware_jax.data.captions import flickr8k, flickr30k, karpathy
from modal_aware_jax.data.problems import DataProblems

TOKENS = (
    b"b.jpg#1\tTwo dogs run .\nb.jpg#0\tA dog .\r\n"
    b"a.jpg.1#0\tA caf\xc3\xa9 .\nc.jpg#0\tIn no list .\n"
)
IMAGES = {f"Flicker8k_Dataset/{name}.jpg": jpeg(i) for i, name in enumerate("abc")}
TEXTS = {
    "Flickr8k.token.txt": TOKENS,
    "Flickr_8k.trainImages.txt": b"b.jpg\n",
    "Flickr_8k.testImages.txt": b"a.jpg\n",
    "__MACOSX/._Flickr8k.token.txt": b"\xff\x00",
}


def of(found):
    return [(r.id, r.sentences, r.split) for r in found.records]


def kinds(caught):
    return sorted((p.kind, p.where.rsplit("/", 1)[-1]) for p in caught.value.problems)


@pytest.mark.parametrize("zipped", [True, False])
def test_flickr8k_in_its_official_layout(tmp_path, zipped):
    if zipped:
        junk = {"__MACOSX/Flicker8k_Dataset/._a.jpg": b"junk"}
        write_zip(tmp_path / "Flickr8k_Dataset.zip", {**junk, **IMAGES})
        write_zip(tmp_path / "Flickr8k_text.zip", TEXTS)
    else:
        write_folder(tmp_path / "Flickr8k", {**IMAGES, **TEXTS})
    found = flickr8k.read(tmp_path)
    assert of(found) == [
        ("b.jpg", ("A dog .", "Two dogs run ."), "train"),
        ("a.jpg", ("A café .",), "test"),
    ]
    assert found.records[1].read_image() == jpeg(0) and not found.problems
    assert "a.jpg" in found.records[1].where
    unlisted = flickr8k.read(tmp_path, keep_unlisted=True).records[2]
    assert (unlisted.id, unlisted.split) == ("c.jpg", "")


def test_flickr8k_as_kaggle_serves_it(tmp_path):
    table = b'image,caption\na.jpg,"A dog, a ""cat"" ."\nb.jpg,One .\na.jpg,Two .\n'
    files = {"Images/a.jpg": jpeg(), "Images/b.jpg": jpeg(1), "captions.txt": table}
    write_folder(tmp_path, files)
    assert of(flickr8k.read(tmp_path)) == [
        ("a.jpg", ('A dog, a "cat" .', "Two ."), ""),
        ("b.jpg", ("One .",), ""),
    ]


@pytest.mark.parametrize("damage", ["content", "password"])
def test_a_zip_of_texts_that_cannot_be_read_is_told(tmp_path, damage):
    write_zip(tmp_path / "Flickr8k_Dataset.zip", IMAGES)
    path = tmp_path / "text.zip"
    write_zip(path, TEXTS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("Flickr8k.token.txt").header_offset
    if damage == "content":
        start = place + 30 + len("Flickr8k.token.txt")
        content[start : start + 8] = bytes(8)
    else:  # the flag of encryption, in both of a member's headers
        content[place + 6] |= 1
        content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(DataProblems, match="token.txt in .*text.zip: cannot be read"):
        flickr8k.read(tmp_path, on_problem="skip")


def test_sentences_that_cannot_be_stored_or_are_none_are_told(tmp_path):
    item = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "\ud83d"}]}
    content = json.dumps({"images": [item]}).encode()
    write_folder(tmp_path, {"a.jpg": jpeg(), "dataset_coco.json": content})
    with pytest.raises(DataProblems, match="half a surrogate pair"):
        karpathy.read(tmp_path)
    write_folder(tmp_path, {"captions.txt": b"image,caption\n"})
    with pytest.raises(ValueError, match="flickr8k: no image has a sentence"):
        flickr8k.read(tmp_path)
    write_folder(tmp_path, {"captions.txt": b'image,caption\na.jpg,"A dog\nb.jpg,x\n'})
    with pytest.raises(DataProblems, match="takes the lines to 3 into one cell"):
        flickr8k.read(tmp_path)


def test_everything_wrong_with_flickr8k_is_told_at_once(tmp_path):
    lines = b"b.jpg 0 no number\nb.jpg#0\tagain\nb.jpg#2\t \nz.jpg#0\tNo file\n\xff\n"
    lists = {"Flickr_8k.testImages.txt": b"a.jpg\nb.jpg\nx.jpg\nz.jpg\n"}
    write_folder(
        tmp_path, {**IMAGES, **TEXTS, **lists, "Flickr8k.token.txt": TOKENS + lines}
    )
    with pytest.raises(DataProblems) as caught:
        flickr8k.read(tmp_path)
    token = "Flickr8k.token.txt line "
    assert kinds(caught) == [
        ("duplicate id", f"{token}6"),
        ("duplicate id", "Flickr_8k.testImages.txt line 2"),
        ("malformed line", f"{token}5"),
        ("no image", "z.jpg"),
        ("no sentence", f"{token}7"),
        ("no sentence", "x.jpg"),
        ("not UTF-8", f"{token}9"),
    ]
    assert "9 problems" not in str(caught.value) and "7 problems" in str(caught.value)
    skipped = flickr8k.read(tmp_path, on_problem="skip")
    assert [r.id for r in skipped.records] == ["b.jpg", "a.jpg"]
    assert len(skipped.problems) == 7


def test_broken_tables_of_kaggle_are_named(tmp_path):
    table = b'image,caption\na.jpg,one,two\na.jpg,caf\xe9\na.jpg,"open'
    write_folder(tmp_path, {"Images/a.jpg": jpeg(), "captions.txt": table})
    with pytest.raises(DataProblems) as caught:
        flickr8k.read(tmp_path)
    assert kinds(caught) == [
        ("malformed line", "captions.txt line 2"),
        ("malformed line", "captions.txt line 4"),
        ("not UTF-8", "captions.txt line 3"),
    ]
    (tmp_path / "captions.txt").write_bytes(b"id,text\n1,x\n")
    with pytest.raises(DataProblems, match="header is .*, not image,caption"):
        flickr8k.read(tmp_path, on_problem="skip")  # nothing is left


def test_flickr30k_in_both_layouts(tmp_path):
    images = {f"flickr30k_images/{n}.jpg": jpeg(n) for n in (1, 2)}
    tokens = b"2.jpg#0\tA man .\n2.jpg#1\tTwo .\n1.jpg#0\tA hat .\n"
    official = {
        "results_20130124.token": tokens,
        "train.txt": b"2\n",
        "val.txt": b"1\n",
    }
    write_folder(tmp_path / "official", {**images, **official})
    expected = [
        ("2.jpg", ("A man .", "Two ."), "train"),
        ("1.jpg", ("A hat .",), "val"),
    ]
    assert of(flickr30k.read(tmp_path / "official")) == expected
    # A line of Kaggle's file lacks its second bar, and its folder holds itself again.
    table = (
        b"image_name| comment_number| comment\n2.jpg| 0| A man .\n"
        b"2.jpg| 1   Two .\n1.jpg| 0| A hat .\n"
    )
    again = {f"flickr30k_images/{name}": data for name, data in images.items()}
    write_folder(tmp_path / "kaggle", {**images, **again, "results.csv": table})
    found = flickr30k.read(tmp_path / "kaggle")
    assert of(found) == [(name, texts, "") for name, texts, _ in expected]
    bad = {**images, "results.csv": table + b"no bar\n"}
    write_folder(tmp_path / "bad", bad)
    with pytest.raises(DataProblems, match="results.csv line 5: 'no bar' is not an"):
        flickr30k.read(tmp_path / "bad")
    write_folder(tmp_path / "head", {**images, "results.csv": b"a,b\n"})
    with pytest.raises(DataProblems, match="not image_name. comment_number. comment"):
        flickr30k.read(tmp_path / "head")


def item(name, split, *texts, **more):
    sentences = [{"raw": text, "tokens": text.split()} for text in texts]
    return {"filename": name, "split": split, "sentences": sentences, **more}


def coco():
    return [
        item("v1.jpg", "test", "A bus .", "Two .", filepath="val2014", cocoid=1),
        item("t2.jpg", "train", " A cat . ", filepath="train2014", cocoid=2),
        item("v3.jpg", "restval", "A hill .", filepath="val2014", cocoid=3),
    ]


def write_karpathy(directory, items, name="dataset_coco.json"):
    write_folder(directory, {name: json.dumps({"images": items}).encode()})


def test_karpathys_coco_with_its_parts(tmp_path):
    write_karpathy(tmp_path, coco())
    write_zip(tmp_path / "train2014.zip", {"train2014/t2.jpg": jpeg(2)})
    write_zip(
        tmp_path / "val2014.zip",
        {"val2014/v1.jpg": jpeg(1), "val2014/v3.jpg": jpeg(3)},
    )
    found = karpathy.read(tmp_path)
    assert of(found) == [
        ("v1.jpg", ("A bus .", "Two ."), "test"),
        ("t2.jpg", ("A cat .",), "train"),
        ("v3.jpg", ("A hill .",), "restval"),
    ]
    assert found.records[2].read_image() == jpeg(3)
    (tmp_path / "train2014.zip").unlink()
    assert [r.id for r in karpathy.read(tmp_path, splits=["test"]).records] == [
        "v1.jpg"
    ]
    with pytest.raises(DataProblems, match="no file t2.jpg with 1 texts"):
        karpathy.read(tmp_path)


def test_karpathys_file_of_any_name_and_what_is_wrong_with_it(tmp_path):
    items = [
        *coco()[:1],
        item("v1.jpg", "test", "Again ."),
        item("v9.jpg", "dev", "No such part ."),
        item("v8.jpg", "test"),
        {"filename": "v7.jpg", "split": "test"},
        item("v3.jpg", "test", "Good .", ""),
    ]
    write_karpathy(tmp_path, items, "mine.json")
    files = {f"images/{name}.jpg": jpeg() for name in ("v1", "v3", "v8")}
    write_folder(tmp_path, files)
    with pytest.raises(DataProblems) as caught:
        karpathy.read(tmp_path, file="mine.json")
    assert kinds(caught) == [
        ("duplicate id", "mine.json image 1"),
        ("malformed line", "mine.json image 4"),
        ("no sentence", "mine.json image 3"),
        ("no sentence", "mine.json image 5"),
        ("unknown split", "mine.json image 2"),
    ]
    skipped = karpathy.read(tmp_path, file="mine.json", on_problem="skip")
    assert [r.sentences for r in skipped.records] == [("A bus .", "Two ."), ("Good .",)]
    (tmp_path / "mine.json").write_bytes(b'{"images": 3}')
    with pytest.raises(DataProblems, match="is not JSON with a list `images`"):
        karpathy.read(tmp_path, file="mine.json")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="flickr8k: .*nowhere is not a directory"):
        flickr8k.read(tmp_path / "nowhere")
    (tmp_path / "flickr30k-images.tar.gz").write_bytes(b"")
    (tmp_path / "broken.zip").write_bytes(b"<html>")
    for module, name in (
        (flickr8k, "Flickr8k.token.txt or captions.txt"),
        (flickr30k, "results_20130124.token or results.token or results.csv"),
        (karpathy, "dataset_flickr8k.json or dataset_flickr30k.json"),
    ):
        with pytest.raises(DataProblems) as caught:
            module.read(tmp_path)
        message = str(caught.value)
        assert f"there is no {name}" in message and "looks like a web page" in message
        assert "extract flickr30k-images.tar.gz first" in message
        with pytest.raises(ValueError, match="on_problem must be 'stop' or 'skip'"):
            module.read(tmp_path, on_problem="ignore")
    with pytest.raises(ValueError, match="splits to be some of train, val, test, rest"):
        karpathy.read(tmp_path, splits=["dev"])
