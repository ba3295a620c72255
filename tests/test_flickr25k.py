"""MIR-Flickr 25k from tiny archives in every layout that users have."""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from tiny_archives import (
    annotation_files,
    flickr_files,
    jpeg,
    write_flickr,
    write_folder,
    write_zip,
)

from modal_aware_jax.data import flickr25k, prepare
from modal_aware_jax.data import prepared as prepared_data
from modal_aware_jax.data.problems import DataProblems


@pytest.fixture
def load(tmp_path):
    """flickr25k.load of tmp_path/data, prepared in tmp_path/prepared, silently."""

    def load(**options):
        options = {"min_tag_count": 1, "progress": False, **options}
        prepared_dir = tmp_path / "prepared"
        return flickr25k.load(tmp_path / "data", prepared_dir=prepared_dir, **options)

    return load


def whole_zips(root):
    write_flickr(root)


def part_zips(root):
    write_zip(root / "mirflickr25k.part1.zip", flickr_files([1, 2, 3]))
    rest = flickr_files([4, 7, 10])
    del rest["mirflickr/doc/readme.txt"]
    write_zip(root / "mirflickr25k.part2.zip", rest)
    write_zip(root / "mirflickr25k_annotations_v080.zip", annotation_files())


def extracted(root):
    write_folder(root, flickr_files())
    write_folder(root / "mirflickr25k_annotations_v080", annotation_files())


def annotations_beside(root):
    write_folder(root, flickr_files())
    write_folder(root, annotation_files())


def mixed(root):
    nested = {
        f"mirflickr25k_annotations_v080/{name}": content
        for name, content in annotation_files().items()
    }
    write_folder(root, flickr_files())
    write_zip(root / "mirflickr25k_annotations_v080.zip", nested)


@pytest.mark.parametrize(
    "layout", [whole_zips, part_zips, extracted, annotations_beside, mixed]
)
def test_every_layout_gives_the_same_pairs(layout, tmp_path, load):
    (tmp_path / "data").mkdir()
    layout(tmp_path / "data")
    pairs = load()
    assert pairs.ids.tolist() == ["im1", "im2", "im4", "im7", "im10"]  # 3 has no tags
    assert pairs.vocabulary == ("sky", "boat", "sea", "café", "explore")
    assert pairs.text.tolist() == [
        [1, 0, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert list(pairs.captions) == [
        "sky, sea",
        "sky",
        "café, boat",
        "sea, sky, boat",
        "explore",
    ]
    assert pairs.images[3] == jpeg(7)  # small enough: its bytes are kept
    assert pairs.images[-1] == jpeg(10) and pairs.images[0:2] == [jpeg(1), jpeg(2)]
    assert pairs.num_labels == 24 and pairs.label_names[0] == "animals"
    named = [
        {pairs.label_names[i] for i in np.flatnonzero(row)} for row in pairs.labels
    ]
    assert named == [{"sky", "sea"}, {"sky"}, set(), {"sky", "sea"}, {"animals"}]


def test_38_labels_and_empty_tags(tmp_path, load):
    write_flickr(tmp_path / "data")
    pairs = load(num_labels=38, keep_all=True)
    assert pairs.ids.tolist() == ["im1", "im2", "im3", "im4", "im7", "im10"]
    assert pairs.text[2].sum() == 0
    assert pairs.num_labels == 38
    relevant_sea = pairs.labels[:, pairs.label_names.index("sea_r1")]
    assert relevant_sea.tolist() == [0, 0, 0, 0, 1, 0]


def test_the_vocabulary_is_given_or_beside_the_archives_or_counted(tmp_path, load):
    data = write_flickr(tmp_path / "data")
    assert load(min_tag_count=2).vocabulary == ("sky", "boat", "sea")
    assert load(vocabulary=["boat", "sky"]).ids.tolist() == ["im1", "im2", "im4", "im7"]
    (data / "tag_vocabulary_2.txt").write_text("explore\nsea\n")
    pairs = load()
    assert pairs.vocabulary == ("explore", "sea")
    assert pairs.text.tolist() == [[0, 1], [0, 1], [1, 0]]
    (data / "tag_vocabulary_3.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match=r"2 vocabularies .*vocabulary=FILE"):
        load()
    assert load(vocabulary=data / "tag_vocabulary_2.txt").vocabulary[0] == "explore"


def test_it_is_prepared_once_and_again_after_a_change(tmp_path, load, monkeypatch):
    data = write_flickr(tmp_path / "data")
    calls = []
    original = flickr25k._scan
    monkeypatch.setattr(
        flickr25k, "_scan", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    first = load()
    second = load()
    assert len(calls) == 1
    np.testing.assert_array_equal(first.text, second.text)
    load(keep_all=True)  # another option
    assert len(calls) == 2
    write_flickr(data, change_images={"mirflickr/im1.jpg": jpeg(99)})  # another file
    assert load().images[0] == jpeg(99)
    assert len(calls) == 3


def test_the_preparation_says_what_was_kept_and_left_out(tmp_path, load, capsys):
    write_flickr(tmp_path / "data")
    load(vocabulary=["sea", "boat"], progress=True)
    (prepared,) = (tmp_path / "prepared").iterdir()
    facts = prepared_data.read_facts(prepared)
    assert facts["counts"] == {
        "pairs left out: tag file is empty": 1,
        "pairs left out: no tag of the vocabulary": 2,
        "pairs kept": 3,
        "pairs kept with no label": 1,
    }
    printed = capsys.readouterr().err
    assert "2 pairs left out: no tag of the vocabulary" in printed
    assert "3 pairs kept" in printed and "pairs/s" in printed


def test_large_images_are_stored_small(tmp_path, load):
    big = jpeg(5, size=(600, 400))
    write_flickr(tmp_path / "data", change_images={"mirflickr/im1.jpg": big})
    from modal_aware_jax.data.pipeline import decode

    assert decode(load(stored_size=100).images[0]).size == (150, 100)
    assert load(stored_size=None).images[0] == big


def test_images_are_small_when_pickled(tmp_path, load):
    write_flickr(tmp_path / "data")
    images = load().images
    images[0]
    pickled = pickle.dumps(images)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[1] == jpeg(2)
    with pytest.raises(IndexError):
        images[5]


def test_an_interrupted_preparation_leaves_nothing_that_looks_finished(tmp_path, load):
    write_flickr(tmp_path / "data")
    script = f"""
        import os
        import time
        from modal_aware_jax.data import flickr25k, prepare
        def slow(encoded, size):
            os.write(1, b"reading\\n")  # at once, unlike print on two threads
            time.sleep(100)
        prepare.to_stored = slow
        flickr25k.load({str(tmp_path / "data")!r}, min_tag_count=1,
                       prepared_dir={str(tmp_path / "prepared")!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[1],
    )
    said = process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    _, error = process.communicate()
    assert said == b"reading\n", error.decode()
    (left,) = (tmp_path / "prepared").iterdir()
    assert ".partial-" in left.name
    assert len(load()) == 5
    (prepared,) = (tmp_path / "prepared").iterdir()  # what was left is gone
    assert ".partial-" not in prepared.name


def test_an_error_while_preparing_leaves_nothing(tmp_path, load, monkeypatch):
    write_flickr(tmp_path / "data")
    monkeypatch.setattr(prepare, "save_columns", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load()
    assert not list((tmp_path / "prepared").iterdir())


def test_of_two_that_prepare_at_once_the_first_wins(tmp_path, load, monkeypatch):
    write_flickr(tmp_path / "data")
    rename = prepare._rename

    def second(partial, target):
        target.mkdir()  # as if another process had been first
        for path in partial.iterdir():
            os.rename(path, target / path.name)
        rename(partial, target)

    monkeypatch.setattr(prepare, "_rename", second)
    assert len(load()) == 5


def test_the_records_are_a_tensorflow_dataset(tmp_path, load):
    import tensorflow_datasets as tfds

    write_flickr(tmp_path / "data")
    load()
    (prepared,) = (tmp_path / "prepared").iterdir()
    facts = json.loads((prepared / "preparation.json").read_text())
    builder = tfds.builder_from_directory(prepared / facts["records"])
    assert builder.name == "flickr25k"
    source = builder.as_data_source(
        split="train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    example = source[3]
    assert example["id"] == b"im7" and example["image"] == jpeg(7)
    assert [int(i) for i in example["text"]] == [0, 1, 2]
    assert "tensorflow" not in sys.modules


def test_where_prepared_data_cannot_be_written_is_said(tmp_path):
    write_flickr(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/x cannot be made .*prepared_dir=FOLDER"):
        flickr25k.load(tmp_path / "data", prepared_dir=tmp_path / "file" / "x")


def test_missing_archives_are_all_named(tmp_path, load):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("")
    with pytest.raises(DataProblems) as caught:
        load()
    assert len(caught.value.problems) == 2
    assert "neither mirflickr25k.zip, nor mirflickr25k.part1.zip" in str(caught.value)
    assert "neither mirflickr25k_annotations_v080.zip nor" in str(caught.value)
    assert "notes.txt" in str(caught.value)
    with pytest.raises(ValueError, match="is not a directory"):
        flickr25k.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="num_labels is 24 or 38, got 21"):
        load(num_labels=21)


def test_a_missing_part_is_named(tmp_path, load):
    (tmp_path / "data").mkdir()
    part_zips(tmp_path / "data")
    (tmp_path / "data" / "mirflickr25k.part1.zip").unlink()
    with pytest.raises(DataProblems, match="mirflickr25k.part1.zip: this part is miss"):
        load()


def test_loading_what_is_prepared_is_quick(tmp_path, load):
    write_flickr(tmp_path / "data")
    load()
    start = time.process_time()
    load()
    assert time.process_time() - start < 1.0
