"""One collection in each format that people have it in, read to the same pairs."""

import csv
import io
import json
import os
import shutil
import subprocess
import tarfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image
from tiny_archives import jpeg

from modal_aware_jax.data import folder
from modal_aware_jax.data.labels import need_labels
from modal_aware_jax.data.new_posts import read_posts
from modal_aware_jax.data.pipeline import decode

TEXTS = ["a red boat", "the lake", "red dog"]
NAMES = ("neg", "pos", "neutral")
HUB = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": list(NAMES), "_type": "ClassLabel"},
            "tags": {
                "feature": {"names": ["x", "y"], "_type": "ClassLabel"},
                "_type": "Sequence",
            },
        }
    }
}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def load(tmp_path):
    def load(source=tmp_path / "data", **options):
        options = {"min_word_count": 1, "progress": False, **options}
        return folder.load(source, prepared_dir=tmp_path / "prepared", **options)

    return load


def write_hub(path, rows, metadata=HUB):
    table = pyarrow.Table.from_pylist(rows)
    if metadata is not None:
        packed = {"huggingface": json.dumps(metadata)}
        table = table.replace_schema_metadata(packed)
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def hub_rows(first=0, **cells):
    return [
        {
            "image": {"bytes": jpeg(first + i), "path": f"{first + i}.jpg"},
            "text": text,
            "label": i,
            **{name: values[i] for name, values in cells.items()},
        }
        for i, text in enumerate(TEXTS)
    ]


def add(archive, name, content, **header):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


# Parquet of the Hugging Face hub


def test_images_and_class_names_inside_a_parquet_file(data, load):
    write_hub(data / "pairs.parquet", hub_rows())
    for pairs in (load(), load(data / "pairs.parquet")):  # the folder, or the file
        assert pairs.images[:] == [jpeg(0), jpeg(1), jpeg(2)]
        assert pairs.ids.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
        assert pairs.label_names == NAMES and (pairs.labels == np.eye(3)).all()
        assert pairs.captions[:] == TEXTS and pairs.parts is None


def test_files_named_after_their_parts_are_a_given_split(data, load):
    (data / "data").mkdir()
    for name, first in (("train-00000-of-00002", 0), ("train-00001-of-00002", 3)):
        write_hub(data / "data" / f"{name}.parquet", hub_rows(first))
    write_hub(data / "data" / "test-00000-of-00001.parquet", hub_rows(6))
    pairs = load()
    assert len(pairs) == 9 and pairs.images[4] == jpeg(1)
    assert pairs.parts.tolist() == ["query"] * 3 + ["train"] * 6
    assert load(given_split=False).parts is None
    assert len(load(table="data/train-*.parquet")) == 6


def test_images_without_names_are_named_after_their_rows(data, load):
    rows = hub_rows()
    for row in rows:
        row["image"]["path"] = None
    write_hub(data / "pairs.parquet", rows)
    assert load().ids.tolist() == ["pairs/1", "pairs/2", "pairs/3"]


def test_lists_of_classes_and_a_missing_one(data, load):
    rows = hub_rows(tags=[[0, 1], [1], []])
    rows[1]["label"] = -1  # the hub's sign of a missing label
    write_hub(data / "pairs.parquet", rows)
    assert load(label_column="tags").labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert load().labels.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    rows[1]["label"] = 3
    write_hub(data / "pairs.parquet", rows)
    with pytest.raises(ValueError, match="'3' of 1.jpg is none of the 3 known"):
        load()


def test_plain_bytes_and_sentences_and_no_metadata(data, load):
    rows = [
        {"image": jpeg(i), "caption_0": text, "caption_1": "seen again", "label": 7}
        for i, text in enumerate(TEXTS)
    ]
    write_hub(data / "pairs.parquet", rows, metadata=None)
    pairs = load()
    assert pairs.images[2] == jpeg(2) and pairs.label_names == ("7",)
    assert pairs.captions[0] == "a red boat\nseen again"
    rows = [{"image": jpeg(0), "captions": ["Two dogs run on sand.", "Dogs play."]}]
    write_hub(data / "pairs.parquet", rows, metadata=None)
    assert "dogs" in load().vocabulary and "sand" in load().vocabulary


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def test_bytes_that_are_text_are_text(data, load):
    """Spark and Hive write strings as bytes; digests are bytes and no images."""
    write_images(data)
    columns = {"image": ["0.jpg", "1.jpg", "2.jpg"], "text": TEXTS, "label": NAMES}
    as_bytes = {k: [v.encode() for v in values] for k, values in columns.items()}
    write_parquet(data / "t.parquet", **as_bytes, digest=[b"\xff\0"] * 3)
    pairs = load()
    assert pairs.captions[:] == TEXTS and set(pairs.label_names) == set(NAMES)
    (data / "1.jpg").write_bytes(jpeg(9))  # noticed, as the images are files
    assert load().images[1] == jpeg(9)
    as_bytes["text"][1] = b"\xff"
    write_parquet(data / "t.parquet", **as_bytes)
    with pytest.raises(ValueError, match="t.parquet: .*column 'text': .*UTF"):
        load()


def test_images_that_a_parquet_file_names_only_are_read_from_the_folder(data, load):
    write_images(data)
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    images = [{"bytes": None, "path": f"{i}.jpg"} for i in range(3)]
    write_parquet(data / "t.parquet", image=pyarrow.array(images, kind), text=TEXTS)
    assert load().images[:] == [jpeg(0), jpeg(1), jpeg(2)]
    (data / "1.jpg").write_bytes(jpeg(9))
    assert load().images[1] == jpeg(9)


@pytest.mark.parametrize("unit", ["ns", "s"])
def test_dates_beyond_those_of_python_do_not_matter(data, load, unit):
    write_images(data)
    dates = pyarrow.array([1, 1001, 10**15], pyarrow.timestamp(unit))
    images = ["0.jpg", "1.jpg", "2.jpg"]
    write_parquet(data / "t.parquet", image=images, text=TEXTS, taken=dates)
    assert load().captions[:] == TEXTS


def test_columns_of_one_name_are_refused(data, load):
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(TEXTS)] * 3, names=["image", "text", "text"]
    )
    pyarrow.parquet.write_table(table, data / "t.parquet")
    with pytest.raises(ValueError, match="the column text is there twice"):
        load()


# Splits, labels


def write_images(data, number=3):
    for i in range(number):
        (data / f"{i}.jpg").write_bytes(jpeg(i))


def test_two_tables_are_a_given_split(data, load):
    write_images(data)
    (data / "my_train.csv").write_text("image,text,label\n0.jpg,sea,a\n1.jpg,sky,b\n")
    (data / "my_test.csv").write_text("image,text,label\n2.jpg,sea,a\n")
    pairs = load()
    assert dict(zip(pairs.ids.tolist(), pairs.parts.tolist(), strict=True)) == {
        "0.jpg": "train",
        "1.jpg": "train",
        "2.jpg": "query",
    }
    with pytest.raises(ValueError, match="2.jpg' was used before"):  # on both sides
        (data / "my_train.csv").write_text("image,text,label\n2.jpg,sea,a\n")
        load()


def test_a_part_without_rows_is_told(data, load):
    write_images(data)
    (data / "train.csv").write_text("image,text\n0.jpg,sea\n1.jpg,sea\n")
    (data / "test.csv").write_text("image,text\n")
    message = "test.csv has no row below its header.*--config.data.options.given_split"
    with pytest.raises(ValueError, match=message):
        load()
    assert len(load(given_split=False)) == 2
    (data / "train.csv").unlink()
    with pytest.raises(ValueError, match="Write a row for each pair[.]$"):
        load(given_split=False)
    with pytest.raises(ValueError, match="test.csv has no row.*each post"):
        read_posts(data)


def test_a_column_names_the_part_of_each_pair(data, load):
    write_images(data)
    table = "file_name,caption,label,split\n0.jpg,sea,a,Train\n1.jpg,sky,b,val\n"
    (data / "t.csv").write_text(table + "2.jpg,sea,b,test\n")
    assert load().parts.tolist() == ["train", "validation", "query"]
    assert load(given_split=False).parts is None
    (data / "t.csv").write_text(table + "2.jpg,sea,b,tset\n")
    with pytest.raises(ValueError, match=r"'tset' is none of train, .*given_split=f"):
        load()


def test_columns_of_zeros_and_ones_are_labels(data, load):
    write_images(data)
    table = "image,text,cat,dog,score\n0.jpg,sea,1,0,.5\n1.jpg,sky,1,1,.2\n"
    (data / "t.csv").write_text(table + "2.jpg,sky,0,0,.2\n")
    pairs = load()
    assert pairs.label_names == ("cat", "dog")
    assert pairs.labels.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert load(label_columns="*og").labels.tolist() == [[0], [1], [0]]
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        load(label_columns="cat,score")
    with pytest.raises(ValueError, match="no column 'cow' of --config.data"):
        load(label_columns="cow")
    with pytest.raises(ValueError, match=r"got both \('cat', '\*og'\). Give one of"):
        load(label_column="cat", label_columns="*og")


def test_what_a_spreadsheet_writes_before_the_header(data, load):
    write_images(data)
    rows = ["image|text, small|labels", "0.jpg|sea|a, b", "1.jpg|sky|b"]
    (data / "t.csv").write_text("\r\n".join(["sep=|", *rows]))
    pairs = load(text_column=["text, small"])
    assert pairs.captions[:] == ["sea", "sky"] and pairs.label_names == ("a", "b")
    (data / "t.csv").write_text('\n\nimage;"text";"label, all"\n0.jpg;sea;a\n')
    assert load(label_column="label, all").label_names == ("a",)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_of_a_spreadsheet_that_writes_no_commas(data, load, separator):
    write_images(data)
    lines = [
        ["image", "text", "labels"],
        ["0.jpg", '"red, small; boat"', "sea"],
        ["1.jpg", "green dog", "land"],
        ["2.jpg", "blue boat", "sea"],
    ]
    text = "\r\n".join(map(separator.join, lines))
    (data / "pairs.csv").write_bytes(text.encode("utf-8-sig"))
    pairs = load()
    assert list(pairs.captions) == ["red, small; boat", "green dog", "blue boat"]
    assert pairs.label_names == ("land", "sea")


def test_a_cell_may_be_longer_than_csv_expects(data, load):
    write_images(data)
    longest = "sea " * 40_000
    (data / "t.csv").write_text(f"image,text\n0.jpg,{longest}\n1.jpg,sky\n")
    assert load().captions[0] == longest


def test_names_of_columns_may_have_spaces(data, load):
    write_images(data)
    table = "File name,Caption,Class\n0.jpg,sea,a\n1.jpg,sky,b\n2.jpg,sea,b\n"
    (data / "t.csv").write_text(table)
    pairs = load()
    assert list(pairs.captions) == ["sea", "sky", "sea"]
    assert pairs.label_names == ("a", "b")


def test_lists_of_zeros_and_ones_are_labels(data, load):
    write_images(data)
    rows = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    lines = [
        json.dumps({"image": f"{i}.jpg", "text": "sea", "labels": row})
        for i, row in enumerate(rows)
    ]
    (data / "t.jsonl").write_text("\n".join(lines))
    pairs = load()
    assert pairs.labels.tolist() == rows and pairs.label_names == ("0", "1", "2")


def label_cells(data, cells):
    with open(data / "t.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "text", "label"])
        rows.writerows([f"{i}.jpg", "sea", cell] for i, cell in enumerate(cells))


@pytest.mark.parametrize("write", [json.dumps, repr, str, lambda x: str(np.array(x))])
def test_lists_of_labels_in_a_cell_keep_their_names(data, load, write):
    write_images(data)
    names = ["dog's", "red, big", "a;b"]
    label_cells(data, map(write, (names, names[1:], [])))
    pairs = load()
    assert set(pairs.label_names) == set(names)
    assert pairs.labels.sum(axis=1).tolist() == [3, 2, 0]


@pytest.mark.parametrize("write", [str, lambda x: str(np.array(x)), json.dumps])
def test_zeros_and_ones_in_a_cell_are_labels(data, load, write):
    write_images(data)
    rows = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    label_cells(data, map(write, rows))
    pairs = load()
    assert pairs.labels.tolist() == rows and pairs.label_names == ("0", "1", "2")
    label_cells(data, ("0 1 1", "", "1;0;0"))
    assert load().labels.tolist() == [rows[0], rows[1], rows[2]]
    label_cells(data, ("[0, 2]", "[1]", "[]"))  # class numbers
    assert load().labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_what_is_not_a_number_is_empty(data, load):
    write_images(data)
    nan = float("nan")
    rows = [
        {"image": "0.jpg", "text": ["sea", nan], "label": [nan, 1.0], "split": nan},
        {"image": "1.jpg", "text": "sky", "label": nan, "split": "test"},
    ]
    (data / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = load()
    assert pairs.label_names == ("1",) and pairs.labels.tolist() == [[1], [0]]
    assert pairs.captions[0] == "sea" and pairs.parts.tolist() == ["", "query"]


def test_class_numbers_of_any_length_have_an_order(data, load):
    write_images(data)
    label_cells(data, ("1" * 5000, "01", "1"))
    assert load().label_names == ("01", "1", "1" * 5000)
    label_cells(data, ("10", "01", "1"))
    assert load().label_names == ("01", "1", "10")


def test_a_negative_class_number_is_none_or_refused(data, load):
    write_images(data)
    table = "image,text,label\n0.jpg,sea,10\n1.jpg,sky,-1\n2.jpg,sea,9\n"
    (data / "t.csv").write_text(table)
    with pytest.raises(ValueError, match=r"-1 is a negative .*no_label=VALUE"):
        load()
    pairs = load(no_label="-1")
    assert pairs.label_names == ("9", "10")  # by their size
    assert pairs.labels.tolist() == [[0, 1], [0, 0], [1, 0]]


def test_a_collection_without_labels_is_read(data, load):
    write_images(data)
    (data / "t.tsv").write_text("image\ttext\n0.jpg\tsea, sky\n1.jpg\tsky\n")
    pairs = load()
    assert pairs.labels.shape == (2, 0) and pairs.vocabulary == ("sky", "sea")


# Other formats


def test_chinese_without_spaces_is_told(data, load, capsys):
    write_images(data)
    for texts, told in (
        (("红色的小船在湖上", "两条狗"), 1),
        (("红色 小船", "两条 狗"), 0),
    ):
        rows = "".join(f"{i}.jpg,{text}\n" for i, text in enumerate(texts))
        (data / "t.csv").write_text(f"image,text\n{rows}", encoding="utf-8")
        load()
        assert capsys.readouterr().out.count("whole clauses of Chinese") == told


def test_a_label_that_every_pair_has_is_told(data, load, capsys):
    write_images(data)
    table = "image,text,label\n0.jpg,sea,a\n1.jpg,sky,{}\n2.jpg,sky,a\n"
    (data / "t.csv").write_text(table.format("b"))
    need_labels(load())
    assert "have the label" not in capsys.readouterr().out
    (data / "t.csv").write_text(table.format("a;b"))
    need_labels(load())
    assert "all 3 pairs of folder have the label 'a'" in capsys.readouterr().out


def test_shards_of_webdataset(data, load):
    for number in range(2):
        with tarfile.open(data / f"{number:05}.tar", "w") as archive:
            for i in range(2):
                key = f"some/{number}{i}"
                add(archive, f"{key}.jpg", jpeg(2 * number + i))
                add(archive, f"{key}.txt", TEXTS[i].encode())
                add(archive, f"{key}.cls", str(i).encode())
                facts = json.dumps({"id": f"p{number}{i}"})
                add(archive, f"{key}.json", facts.encode())
    pairs = load()
    assert pairs.ids.tolist() == ["p00", "p01", "p10", "p11"]
    assert pairs.images[:] == [jpeg(i) for i in range(4)]
    assert pairs.labels.tolist() == [[1, 0], [0, 1]] * 2
    assert pairs.captions[3] == TEXTS[1]


def test_a_shard_that_is_cut_between_members_is_told(data, load):
    with tarfile.open(data / "0.tar", "w") as archive:
        for i, text in enumerate(TEXTS):
            add(archive, f"{i}.jpg", jpeg(i))
            add(archive, f"{i}.txt", text.encode())
        end = archive.offset
    with open(data / "0.tar", "r+b") as file:
        file.truncate(end)
    with pytest.raises(ValueError, match="has no mark of its end"):
        load()
    assert len(load(on_problem="skip")) == 3


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2"])
def test_a_compressed_shard_is_uncompressed_as_the_message_says(data, load, suffix):
    path = data / "my shard.tar"
    with tarfile.open(path, f"w:{suffix}") as archive:
        for i, text in enumerate(TEXTS):
            add(archive, f"{i}.jpg", jpeg(i))
            add(archive, f"{i}.txt", text.encode())
    with pytest.raises(ValueError, match="is compressed") as caught:
        load()
    command = str(caught.value).rpartition("first: ")[2]
    program = command.rpartition("&& ")[2].split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not there")
    subprocess.run(command, shell=True, check=True)
    assert load().captions[:] == TEXTS


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("t.csv.gz", "uncompress t.csv.gz first"),
        ("t.tgz", "uncompress t.tgz first"),
        ("t.xlsx", 'save t.xlsx as "CSV UTF-8"'),
        ("t.ndjson", "name t.ndjson t.jsonl"),
    ],
)
def test_a_table_in_another_form_is_told_with_what_to_do(data, load, name, hint):
    (data / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"0 are there \(none\) \({hint}\)"):
        load()
    with pytest.raises(ValueError, match=f"To read it, {hint}[.]$"):
        load(table=name)
    with pytest.raises(ValueError, match="table=,: no file is named"):
        load(table=",")
    os.mkfifo(data / "pipe")
    with pytest.raises(ValueError, match="neither a folder nor a plain file"):
        load(data / "pipe")


def test_a_second_image_of_one_name_in_a_shard_is_told(data, load):
    """Names count up to their first dot, as the webdataset library has it."""
    with tarfile.open(data / "0.tar", "w") as archive:
        for i, text in enumerate(TEXTS):
            add(archive, f"IMG 2024.05.0{i}.jpg", jpeg(i))
            add(archive, f"IMG 2024.05.0{i}.txt", text.encode())
    with pytest.raises(
        ValueError, match="second member .4..*counts up to its first dot"
    ):
        load()
    pairs = load(on_problem="skip")
    assert pairs.ids.tolist() == ["IMG 2024"] and pairs.captions[:] == TEXTS[:1]


def test_a_text_file_beside_each_image(data, load):
    for i, place in enumerate(("cats/a", "dogs/b", "dogs/c")):
        (data / place).parent.mkdir(exist_ok=True)
        (data / f"{place}.jpg").write_bytes(jpeg(i))
        (data / f"{place}.txt").write_text(TEXTS[i] + "\n")
    pairs = load()
    assert pairs.ids.tolist() == ["cats/a.jpg", "dogs/b.jpg", "dogs/c.jpg"]
    assert pairs.captions[:] == TEXTS and pairs.num_labels == 0
    assert load(label_column="folder").label_names == ("cats", "dogs")
    (data / "dogs" / "c.txt").write_text("changed")
    assert load().captions[2] == "changed"


def test_texts_in_upper_case_and_linked_folders_are_read(data, load, tmp_path):
    for i, place in enumerate((data, tmp_path / "elsewhere", tmp_path / "elsewhere")):
        place.mkdir(exist_ok=True)
        (place / f"{i}.JPG").write_bytes(jpeg(i))
        (place / f"{i}.TXT").write_text(TEXTS[i])
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(data)  # in a circle, twice: 2 to the 40 paths
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    pairs = load()
    assert pairs.ids.tolist() == ["0.JPG", "linked/1.JPG", "linked/2.JPG"]
    assert pairs.captions[:] == TEXTS and pairs.images[2] == jpeg(2)


def test_text_files_beside_no_image_are_told(data, load, capsys):
    for name in ("a.jpg", "b.jpeg"):
        (data / name).write_bytes(jpeg(0))
    (data / "more").mkdir()
    # b's second text is not read either, but it lies beside its image.
    read = ("a.txt", "b.txt", "b.jpeg.txt")
    for name in (*read, "README.txt", "more/photo.txt", "more/._photo.txt"):
        (data / name).write_text("the sea")
    assert load(progress=True).ids.tolist() == ["a.jpg", "b.jpeg"]
    told = "2 text files beside no image: README.txt, more/photo.txt"
    assert told in capsys.readouterr().err


def test_pictures_beside_texts_have_any_suffix_of_a_photograph(data, load):
    for i, suffix in enumerate((".jfif", ".JPE", ".avif")):
        picture = io.BytesIO(jpeg(i))
        if suffix == ".avif":
            pytest.importorskip("PIL._avif")
            picture = io.BytesIO()
            Image.new("RGB", (16, 16)).save(picture, "AVIF")
        (data / f"{i}{suffix}").write_bytes(picture.getvalue())
        (data / f"{i}.txt").write_text("the sea")
    assert load().ids.tolist() == ["0.jfif", "1.JPE", "2.avif"]


def test_json_of_coco(data, load):
    write_images(data)
    images = [{"id": i + 5, "file_name": f"{i}.jpg"} for i in range(3)]
    captions = [{"image_id": 5 + i % 3, "caption": f"Sea {i}."} for i in range(4)]
    (data / "captions.json").write_text(
        json.dumps({"images": images, "annotations": captions})
    )
    content = {
        "images": images,
        "annotations": [{"image_id": 7, "category_id": 18}] * 2,
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "man"}],
    }
    (data / "instances.json").write_text(json.dumps(content))
    pairs = load()
    assert pairs.captions[:] == ["Sea 0.\nSea 3.", "Sea 1.", "Sea 2."]
    assert pairs.label_names == ("dog", "man")
    assert pairs.labels.tolist() == [[0, 0], [0, 0], [1, 0]]


def test_annotations_of_coco_that_name_no_image_or_no_text_are_told(data, load):
    write_images(data)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (0, 1, 2)]
    images[2]["id"] = 1  # that of another image
    rows = [(0.0, "sea"), (1, None), (0, 5), (0, ["dog"]), (7, "sky")]
    notes = [{"image_id": i, "caption": caption} for i, caption in rows]
    content = {"images": images, "annotations": notes}
    (data / "t.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        load(allow_empty_text=True)
    told = [f"{p.where.rpartition('.json ')[2]}: {p}" for p in caught.value.problems]
    assert [one.split(":")[0] for one in told] == [
        *("image 3", "annotation 3", "annotation 4", "annotation 5")
    ]
    assert "has the id 1 of another image" in told[0]
    assert load(allow_empty_text=True, on_problem="skip").captions[:2] == ["sea", ""]
    content = {"images": [{"filename": "0.jpg", "sentences": [{"tokens": ["a", "b"]}]}]}
    (data / "t.json").write_text(json.dumps(content))
    assert load().captions[:] == ["a b"]


def test_json_of_karpathy(data, load):
    (data / "val2014").mkdir()
    write_images(data / "val2014")
    images = [
        {
            "filename": f"{i}.jpg",
            "filepath": "val2014",
            "split": ("restval", "val", "test")[i],
            "sentences": [{"raw": TEXTS[i]}, {"raw": "once more"}],
        }
        for i in range(3)
    ]
    (data / "dataset.json").write_text(json.dumps({"images": images}))
    pairs = load()
    assert pairs.captions[1] == "the lake\nonce more"
    assert pairs.parts.tolist() == ["train", "validation", "query"]


def picture(i):
    return np.asarray(Image.open(io.BytesIO(jpeg(i, size=(20, 16)))))


TAGS = np.eye(6, 5, dtype=np.uint8)
LABELS = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 0]], np.uint8).T
PICTURES = np.stack([picture(i) for i in range(6)])  # [6, 16, 20, 3]


def check_matlab(pairs):
    assert len(pairs) == 6
    np.testing.assert_array_equal(decode(pairs.images[4]), PICTURES[4])
    np.testing.assert_array_equal(pairs.labels, LABELS)
    assert pairs.captions[1] == "tag 2" and not pairs.text[5].any()


def test_matlab_of_dcmh(data, load):
    with h5py.File(data / "FLICKR-25K.mat", "w") as file:
        # As h5py shows what MATLAB wrote: all axes in reverse.
        images = PICTURES.transpose(0, 3, 2, 1).astype(np.float64)
        file.create_dataset("images", data=images).attrs["MATLAB_class"] = b"double"
        file["YAll"], file["LAll"] = TAGS.T, LABELS.T
        file["ghost"] = h5py.ExternalLink("/etc/passwd", "x")
    check_matlab(load(allow_empty_text=True))
    words = [f"word{i}" for i in range(5)]
    with pytest.raises(ValueError, match="has no words"):
        load(vocabulary=words)


def test_matlab_files_for_each_table(data, load):
    scipy.io.savemat(data / "mir-iall.mat", {"IAll": PICTURES.transpose(1, 2, 3, 0)})
    scipy.io.savemat(data / "mir-yall.mat", {"YAll": TAGS})
    scipy.io.savemat(data / "mir-lall.mat", {"LAll": LABELS})
    check_matlab(load(allow_empty_text=True))
    (data / "mir-iall.mat").unlink()
    with pytest.raises(ValueError, match="there is no table of images"):
        load()


def test_tables_of_matlab_that_hold_nothing_or_no_colours_are_told(data, load):
    with h5py.File(data / "f.mat", "w") as file:
        file["IAll"], file["LAll"] = PICTURES, LABELS
        file["YAll"] = h5py.Empty("f")
    with pytest.raises(ValueError, match=r"no table of tags \(YAll\)"):
        load()
    content = {"IAll": PICTURES.astype(complex), "YAll": TAGS, "LAll": LABELS}
    scipy.io.savemat(data / "f.mat", content)
    with pytest.raises(ValueError, match="no colours but of type complex"):
        load(allow_empty_text=True)


def test_features_in_place_of_images_are_refused(data, load):
    features = {"images": np.ones((6, 4096)), "YAll": TAGS, "LAll": LABELS}
    scipy.io.savemat(data / "f.mat", features)
    with pytest.raises(ValueError, match="Features of images cannot be read"):
        load()
