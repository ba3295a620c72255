"""An own collection from each kind of table, without code."""

import csv
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tiny_archives import jpeg

from modal_aware_jax.data import folder

ROWS = [
    {"image": "a.jpg", "text": "A red boat on a lake", "labels": ["boat", "lake"]},
    {"image": "b.jpg", "text": "the lake, in winter; a", "labels": ["lake"]},
    {"image": "more/c.jpg", "text": "Red dog", "labels": ["dog"]},
]


@pytest.fixture
def load(tmp_path):
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    for seed, row in enumerate(ROWS):
        (data / row["image"]).write_bytes(jpeg(seed))

    def load(**options):
        options = {"min_word_count": 1, "progress": False, **options}
        return folder.load(data, prepared_dir=tmp_path / "prepared", **options)

    return load


def write_rows(path, to_cell, **options):
    encoding = options.pop("encoding", "utf-8")
    with open(path, "w", newline="", encoding=encoding) as file:
        table = csv.DictWriter(file, ["image", "text", "labels"], **options)
        table.writeheader()
        table.writerows({**row, "labels": to_cell(row["labels"])} for row in ROWS)


def write_csv(data):
    write_rows(data / "pairs.csv", "; ".join, lineterminator="\n")


def write_excel_csv(data):
    write_rows(data / "p.CSV", "|".join, encoding="utf-8-sig")


def write_csv_of_lists(data):
    write_rows(data / "pairs.csv", str)  # "['boat', 'lake']", as pandas does


def write_jsonl(data):
    lines = [json.dumps(row) + "\n" for row in ROWS]
    (data / "pairs.jsonl").write_text("\n".join(lines))


def write_parquet(data):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), data / "pairs.parquet")


@pytest.mark.parametrize(
    "write",
    [write_csv, write_excel_csv, write_csv_of_lists, write_jsonl, write_parquet],
)
def test_every_kind_of_table_gives_the_same_pairs(write, tmp_path, load):
    write(tmp_path / "data")
    pairs = load()
    assert pairs.ids.tolist() == ["a.jpg", "b.jpg", "more/c.jpg"]
    assert pairs.images[2] == jpeg(2)
    assert pairs.label_names == ("boat", "dog", "lake")
    assert pairs.labels.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 0]]
    # By frequency, then by the alphabet.
    assert " ".join(pairs.vocabulary) == "a lake red boat dog in on the winter"
    assert pairs.text.sum(axis=1).tolist() == [5, 5, 2]
    assert pairs.captions[0] == "A red boat on a lake"


def test_tags_are_taken_as_they_are(tmp_path, load):
    rows = [
        {"image": "a.jpg", "text": ["Red Boat", "sea"], "labels": "x", "id": 7},
        {"image": "b.jpg", "text": ["sea"], "labels": ["x", "y"], "id": 8},
    ]
    data = tmp_path / "data"
    (data / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = load()
    assert pairs.vocabulary == ("sea", "red boat")
    assert pairs.ids.tolist() == ["7", "8"] and pairs.captions[0] == "red boat, sea"
    (data / "t.jsonl").unlink()
    (data / "t.csv").write_text(
        "image,text,labels\na.jpg,Red Boat;sea,x\nb.jpg,sea,y\n"
    )
    assert load(tag_separator=";").vocabulary == ("sea", "red boat")


def test_columns_labels_and_words_can_be_named(tmp_path, load):
    data = tmp_path / "data"
    (data / "t.csv").write_text("file,words,kinds\na.jpg,red sea,x\nb.jpg,sea,\n")
    pairs = load(
        image_column="file",
        text_column="words",
        label_column="kinds",
        label_names=("y", "x"),
        vocabulary=("red", "green"),
    )
    assert pairs.labels.tolist() == [[0, 1], [0, 0]]
    assert pairs.text.tolist() == [[1, 0], [0, 0]]


def test_names_that_are_given_twice_or_empty_are_taken_as_meant(tmp_path, load):
    write_csv(tmp_path / "data")
    pairs = load(label_names="lake, boat,lake,dog", tag_separator="")
    assert pairs.label_names == ("lake", "boat", "dog")
    assert pairs.labels.sum(axis=0).tolist() == [2, 1, 1]
    assert "boat" in pairs.vocabulary
    for place in ("none.txt", str(tmp_path)):
        with pytest.raises(ValueError, match=f"{place} cannot be read .*one word a"):
            load(vocabulary=place)


def test_only_frequent_words_are_kept(tmp_path, load):
    write_csv(tmp_path / "data")
    assert load(min_word_count=2).vocabulary == ("a", "lake", "red")
    assert load(min_word_count=2, max_words=1).vocabulary == ("a",)
    with pytest.raises(ValueError, match="9 words of 3 documents occurs in 3"):
        load(min_word_count=5)
    for table in (tmp_path / "data").glob("*.csv"):
        table.write_text("image,text,labels\na.jpg,,x\nb.jpg,,y\n")
    told = "none of the 2 pairs has a word.*options.text_column="
    with pytest.raises(ValueError, match=told):
        load(allow_empty_text=True)


def test_the_table_is_the_only_one_or_named(tmp_path, load):
    data = tmp_path / "data"
    with pytest.raises(ValueError, match=r"one table .* but 0 are there \(none\)"):
        load()
    write_csv(data)
    write_jsonl(data)
    with pytest.raises(ValueError, match=r"2 are there \(pairs.csv, pairs.jsonl\)"):
        load()
    assert len(load(table="pairs.jsonl")) == 3
    with pytest.raises(ValueError, match="no table .*nothing.csv"):
        load(table="nothing.csv")
    with pytest.raises(ValueError, match="from .csv, .tsv, .* and .mat files; .jpg"):
        load(table="a.jpg")


def test_a_change_of_an_image_or_of_the_table_prepares_again(tmp_path, load):
    write_csv(tmp_path / "data")
    load()
    (tmp_path / "data" / "b.jpg").write_bytes(jpeg(50))
    assert load().images[1] == jpeg(50)
    (tmp_path / "data" / "unrelated.txt").write_text("")
    load()
    assert len(list((tmp_path / "prepared").iterdir())) == 2


def test_a_quoted_cell_may_span_lines(tmp_path, load):
    content = 'image,text,labels\na.jpg,"red\nboat",x\nb.jpg,"say ""sea""",y\n'
    (tmp_path / "data" / "t.csv").write_text(content)
    pairs = load()
    assert pairs.captions[:] == ["red\nboat", 'say "sea"']
    np.testing.assert_array_equal(pairs.labels, np.eye(2))
