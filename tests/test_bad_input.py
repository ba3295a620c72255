"""Whatever is wrong with the input is named, all of it, and nothing is dropped."""

import concurrent.futures
import io
import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image
from tiny_archives import jpeg, write_flickr

from modal_aware_jax.data import flickr25k, folder
from modal_aware_jax.data import prepared as prepared_data
from modal_aware_jax.data.pipeline import decode
from modal_aware_jax.data.problems import DataProblems
from modal_aware_jax.data.stored_image import ImageProblem, to_stored

TAGS = "mirflickr/meta/tags/"


def picture(mode="RGB", size=(32, 16), format="JPEG", **options):
    """Left red, right blue; or, without colours, left dark and right light."""
    image = Image.new("RGB", size, (200, 0, 0))
    image.paste((0, 0, 250), (size[0] // 2, 0, *size))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def stored(encoded, size=None):
    pixels, done = to_stored(encoded, size)
    return np.asarray(decode(pixels)).astype(int), done


def problems_of(caught):
    return {(problem.kind, problem.where) for problem in caught.value.problems}


# Images


def test_an_upright_rgb_image_keeps_its_bytes():
    for format in ("JPEG", "PNG"):
        assert to_stored(picture(format=format), 16) == (picture(format=format), ())
    pixels, done = stored(picture(format="WEBP", lossless=True))
    assert abs(pixels[8, 4] - [200, 0, 0]).max() < 20 and not done


def test_grey_is_repeated_over_the_channels():
    pixels, done = stored(picture("L"))
    assert (pixels[..., :1] == pixels).all() and done == ("converted from L to RGB",)
    assert abs(pixels[8, 4, 0] - 60) <= 2  # 0.299 * 200


def test_sixteen_bit_grey_is_scaled_not_clipped():
    buffer = io.BytesIO()
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    Image.fromarray(ramp).save(buffer, "PNG")
    pixels, _ = stored(buffer.getvalue())
    assert abs(pixels[8, :, 0] - np.linspace(0, 255, 64)).max() < 4


@pytest.mark.parametrize("scale", [1, 255])
def test_grey_of_fractions_is_scaled_not_clipped(scale):
    ramp = np.tile(np.linspace(0, scale, 64, dtype=np.float32), (16, 1))
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "TIFF")
    pixels, _ = stored(buffer.getvalue())
    assert abs(pixels[8, :, 0] - np.linspace(0, 255, 64)).max() < 4


@pytest.mark.parametrize("value", [np.nan, -1.0, 300.0, -1, 1 << 20])
def test_values_that_are_no_grey_are_refused(value):
    kind = np.int32 if isinstance(value, int) else np.float32
    values = np.full((16, 16), 100, kind)
    values[3, 3] = value
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    with pytest.raises(ImageProblem, match="grey is of 0 to 255"):
        to_stored(buffer.getvalue(), 16)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_the_right_colours(format):
    pixels, done = stored(picture("CMYK", format=format))
    assert done == ("converted from CMYK to RGB",)
    assert abs(pixels[8, 4] - [200, 0, 0]).max() < 25
    assert abs(pixels[8, 28] - [0, 0, 250]).max() < 25


def test_what_is_transparent_lies_on_white():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 128, 0, 255), (0, 0, 8, 16))
    for mode in ("RGBA", "P"):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "PNG")
        pixels, _ = stored(buffer.getvalue())
        assert pixels[8, 14].min() > 240
        assert abs(pixels[8, 2] - [0, 128, 0]).max() < 12


def test_an_image_on_its_side_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the right way up after a quarter turn to the right
    pixels, done = stored(picture(exif=exif))
    assert pixels.shape == (32, 16, 3) and done == ("turned upright",)
    assert pixels[4, 8, 0] > 150 and pixels[28, 8, 2] > 150  # red is at the top
    for upright in (0, 1, 9):
        exif[0x0112] = upright
        assert not stored(picture(exif=exif))[1]


def with_exif(block):
    """The picture with a block that PIL takes for EXIF, and warns about if damaged."""
    encoded = picture()
    size = (len(block) + 8).to_bytes(2, "big")
    return encoded[:2] + b"\xff\xe1" + size + b"Exif\0\0" + block + encoded[2:]


@pytest.mark.parametrize("block", [b"II*\0\x08\0\0\0\x05\0", b"MM\0*\xff\xff\xff\xff"])
def test_a_damaged_exif_block_is_told_once_and_not_kept(block):
    pixels, done = to_stored(with_exif(block), None)
    assert done == ("rid of a damaged EXIF block",) and b"Exif" not in pixels
    decode(pixels)  # warnings are errors here


def test_pictures_are_judged_alike_on_many_threads():
    encoded = [with_exif(b"II*\0\x08\0\0\0\x05\0"), picture(), jpeg()[:300]] * 20

    def judge(one):
        try:
            return to_stored(one, None)[1]
        except ImageProblem as problem:
            return problem.kind

    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(judge, encoded))
    assert found == [("rid of a damaged EXIF block",), (), "unreadable image"] * 20
    assert warnings.filters == before


def test_huge_images_are_reduced_with_their_shape():
    pixels, done = stored(jpeg(0, size=(2000, 1000)), 50)
    assert pixels.shape == (50, 100, 3) and done == ("reduced",)
    # Reduced by another way: the mean colour of each quarter is the same.
    whole = np.asarray(decode(jpeg(0, size=(2000, 1000)))).reshape(2, 500, 2, 1000, 3)
    part = pixels.reshape(2, 25, 2, 50, 3)
    assert abs(whole.mean((1, 3)) - part.mean((1, 3))).max() < 3


@pytest.mark.parametrize(
    ("encoded", "kind", "message"),
    [
        (jpeg()[:300], "unreadable image", "Truncated"),
        (jpeg()[:-60], "unreadable image", "truncated"),
        (b"", "unreadable image", "is empty"),
        (b"<html>404</html>", "unreadable image", "no image that PIL can read"),
        (picture(size=(1, 1)), "tiny image", "1x1 pixels, at least 8x8"),
        (picture(size=(100, 4)), "tiny image", "100x4 pixels"),
        (picture(format="PNG")[:-30], "unreadable image", "cannot be decoded"),
    ],
)
def test_images_that_cannot_be_used(encoded, kind, message):
    with pytest.raises(ImageProblem, match=message) as caught:
        to_stored(encoded, 16)
    assert caught.value.kind == kind


def test_a_decompression_bomb_is_refused_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ImageProblem, match="exceed the limit of 400"):
        to_stored(picture(), 16)


# MIR-Flickr 25k


@pytest.fixture
def load_flickr(tmp_path):
    def load(**options):
        options = {"min_tag_count": 1, "progress": False, **options}
        return flickr25k.load(
            tmp_path / "data", prepared_dir=tmp_path / "prepared", **options
        )

    return load


def test_everything_is_reported_at_the_end_and_skipped_on_demand(
    tmp_path, load_flickr, capsys
):
    write_flickr(
        tmp_path / "data",
        change_images={
            "mirflickr/im1.jpg": jpeg(1)[:200],
            "mirflickr/im2.jpg": None,
            TAGS + "tags4.txt": "café\n".encode("latin-1"),
            "mirflickr/im8.jpg": jpeg(8),  # without a tag file
        },
        change_annotations={
            "sky.txt": b"1\r\nseven\r\n7\r\n123\r\n",
            "dragon.txt": b"1\r\n",
            "sea.txt": None,
        },
    )
    images = f"in {tmp_path / 'data' / 'mirflickr25k.zip'}"
    labels = f"in {tmp_path / 'data' / 'mirflickr25k_annotations_v080.zip'}"
    with pytest.raises(DataProblems) as caught:
        load_flickr()
    assert problems_of(caught) == {
        ("unreadable image", f"mirflickr/im1.jpg {images}"),
        ("missing image", "mirflickr/im2.jpg (its tags are there)"),
        ("not UTF-8", f"{TAGS}tags4.txt {images}"),
        ("missing tags", f"{TAGS}tags8.txt"),
        ("malformed line", f"sky.txt {labels} line 2"),
        ("unknown label", f"dragon.txt {labels}"),
        ("missing label file", "mirflickr25k_annotations_v080"),
    }
    message = str(caught.value)
    assert "7 problems in the input" in message and "options.on_problem=skip" in message
    assert "replace it by an intact copy" in message and "Truncated" in message
    listing = message.split("one a line: ")[1].split("\n")[0]
    with open(listing) as file:
        assert len([json.loads(line) for line in file]) == 7

    pairs = load_flickr(on_problem="skip", progress=True)
    assert pairs.ids.tolist() == ["im7", "im10"]
    assert "7 problems in the input" in capsys.readouterr().err
    (prepared,) = (tmp_path / "prepared").iterdir()
    counts = prepared_data.read_facts(prepared)["counts"]
    assert counts == {
        "pairs kept": 2,
        "pairs left out: missing image": 1,
        "pairs left out: missing tags": 1,
        "pairs left out: tag file is empty": 1,
        "pairs left out: tags are not UTF-8": 1,
        "pairs left out: unreadable image": 1,
        "label entries of images that are not here": 1,
    }
    with pytest.raises(DataProblems, match="7 problems"):  # it stays a problem
        load_flickr()


def test_corrected_input_is_read_anew(tmp_path, load_flickr):
    write_flickr(tmp_path / "data", change_images={"mirflickr/im1.jpg": b"x"})
    with pytest.raises(DataProblems):
        load_flickr()
    write_flickr(tmp_path / "data")
    assert len(load_flickr()) == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-100], "its end is missing.*cat NAME.part1.zip"),
        (lambda content: b"PK" + content[len(content) // 2 :], "one of several parts"),
        (lambda content: b"<!DOCTYPE html>", "is not a zip archive .*a web page"),
        (lambda content: b"", "of 0 bytes is empty"),
    ],
)
def test_an_archive_that_is_cut_or_none_is_named(
    damage, message, tmp_path, load_flickr
):
    path = write_flickr(tmp_path / "data") / "mirflickr25k.zip"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataProblems, match=f"(?s)mirflickr25k.zip: .*{message}"):
        load_flickr(on_problem="skip")
    assert not list((tmp_path / "prepared").glob("*"))


def test_a_damaged_member_of_an_archive_is_one_problem(tmp_path, load_flickr):
    path = write_flickr(tmp_path / "data") / "mirflickr25k.zip"
    content = bytearray(path.read_bytes())
    start = content.index(b"mirflickr/im1.jpg") + 60
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataProblems) as caught:
        load_flickr()
    (problem,) = caught.value.problems
    assert problem.kind == "unreadable image" and "im1.jpg" in problem.where


def test_when_nothing_is_left_all_problems_are_still_named(tmp_path, load_flickr):
    bad = {f"mirflickr/im{n}.jpg": b"?" for n in (1, 2, 4, 7, 10)}
    write_flickr(tmp_path / "data", change_images=bad)
    with pytest.raises(DataProblems, match="5 problems"):
        load_flickr(on_problem="skip")
    with pytest.raises(ValueError, match="no pair is left.*no tag of the vocabulary"):
        write_flickr(tmp_path / "data")
        load_flickr(vocabulary=["zebra"])


def test_on_problem_is_stop_or_skip(tmp_path, load_flickr):
    write_flickr(tmp_path / "data")
    with pytest.raises(ValueError, match="'stop' or 'skip', got 'ignore'"):
        load_flickr(on_problem="ignore")


# A folder with a table


@pytest.fixture
def load_folder(tmp_path):
    def load(table, *, name="t.csv", **options):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for seed, image in enumerate(("a.jpg", "b.jpg", "c.jpg")):
            (data / image).write_bytes(jpeg(seed))
        (data / "cut.jpg").write_bytes(jpeg()[:250])
        (data / name).write_bytes(table if isinstance(table, bytes) else table.encode())
        options = {"min_word_count": 1, "progress": False, **options}
        return folder.load(data, prepared_dir=tmp_path / "prepared", **options)

    return load


def test_every_bad_row_is_named_with_its_line(tmp_path, load_folder):
    table = (
        b"image,text,labels\n"
        b"a.jpg,red sea,x\n"
        b"none.jpg,sea,x\n"
        b",sea,x\n"
        b"b.jpg,,x\n"
        b"a.jpg,again,x\n"
        b"c.jpg,sea,y;dragon\n"
        b"b.jpg,caf\xe9,x\n"
        b"b.jpg,sea\n"
        b"cut.jpg,sea,y\n"
        b"b.jpg,sea,y\n"
    )
    with pytest.raises(DataProblems) as caught:
        load_folder(table, label_names=["x", "y"])
    data = tmp_path / "data"
    path = data / "t.csv"
    assert problems_of(caught) == {
        ("missing image", f"{data / 'none.jpg'} ({path} line 3)"),
        ("missing image", f"{path} line 4"),
        ("empty text", f"{path} line 5"),
        ("repeated image", f"{path} line 6"),
        ("unknown label", f"{path} line 7"),
        ("not UTF-8", f"{path} line 8"),
        ("malformed line", f"{path} line 9"),
        ("unreadable image", f"{data / 'cut.jpg'} ({path} line 10)"),
    }
    message = str(caught.value)
    assert "'dragon' of c.jpg is none of the 2 known labels" in message
    assert f"id 'a.jpg' was used before, at {path} line 2" in message
    assert "2 cells, but the header has 3" in message
    pairs = load_folder(table, label_names=["x", "y"], on_problem="skip")
    assert pairs.ids.tolist() == ["a.jpg", "b.jpg"]


def test_several_texts_of_an_image_are_read_as_the_message_says(load_folder):
    with pytest.raises(DataProblems, match="caption_0, caption_1.*in a column id"):
        load_folder("image,caption\na.jpg,red sea\na.jpg,a sea\n")
    pairs = load_folder("image,caption_0,caption_1\na.jpg,red sea,a sea\n")
    assert pairs.captions[:] == ["red sea\na sea"]
    pairs = load_folder("id,image,caption\n1,a.jpg,red sea\n2,a.jpg,a sea\n")
    assert pairs.ids.tolist() == ["1", "2"]
    with pytest.raises(DataProblems, match="duplicate id.*remove or rename all but"):
        load_folder("id,image,caption\n1,a.jpg,red sea\n1,b.jpg,a sea\n")


def test_a_quote_that_is_not_closed_names_the_lines_that_it_takes(load_folder):
    table = 'image,text\na.jpg,sea\nb.jpg,"sea\nc.jpg,sky\na.jpg,sky\n'
    told = "t.csv line 3: .*: a quote that opens here takes the lines to 5 into one"
    with pytest.raises(DataProblems, match=told):
        load_folder(table)
    with pytest.raises(ValueError, match="t.csv line 1: the header cannot be read"):
        load_folder('image,"text\na.jpg,sea\n')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_table_in_another_encoding_is_told(load_folder, encoding):
    with pytest.raises(ValueError, match="header is not UTF-8. Save the table as UTF-"):
        load_folder("image,text,été\na.jpg,sea,x\n".encode(encoding))


def test_texts_that_are_none_are_named(load_folder):
    texts = [{"raw": "sea"}, [{"raw": "sea"}], [["sea"]], "sea"]
    rows = [{"image": f"{i}.jpg", "text": text} for i, text in enumerate(texts)]
    with pytest.raises(DataProblems) as caught:
        load_folder("\n".join(map(json.dumps, rows)), name="t.jsonl")
    assert [p.message.split(" but ")[-1] for p in caught.value.problems[:3]] == [
        "a dict",
        "a list of dict",
        "a list of list",
    ]


def test_odd_names_of_images_are_read_or_named(tmp_path, load_folder):
    with pytest.raises(DataProblems) as caught:
        load_folder(f"image,text,id\n{'a' * 900}.jpg,sea,\na.jpg,sea,a\0\n")
    told = [(p.kind, p.message) for p in caught.value.problems]
    assert told[0] == ("malformed line", "the id 'a\\x00' has a NUL character")
    assert told[1][0] == "unreadable image" and "File name too long" in told[1][1]
    data = tmp_path / "data"
    (data / "t.csv").unlink()
    for name in (b" a .jpg", b"caf\xe9.jpg"):
        path = data / os.fsdecode(name)
        path.write_bytes(jpeg(1))
        path.with_suffix(".txt").write_text("sea")
    (data / "cut.jpg").unlink()
    options = {"prepared_dir": tmp_path / "prepared", "progress": False}
    options |= {"min_word_count": 1, "allow_empty_text": True}
    with pytest.raises(DataProblems, match="caf.*: its id has bytes that are not UTF"):
        folder.load(data, **options)
    pairs = folder.load(data, on_problem="skip", **options)
    assert pairs.ids.tolist() == ["a .jpg", "a.jpg", "b.jpg", "c.jpg"]


def test_bad_json_lines_are_named(tmp_path, load_folder):
    good = json.dumps({"image": "a.jpg", "text": "sea", "labels": ["x"]})
    half = '{"image": "b.jpg", "text": "\\ud83d", "labels": []}'
    lines = [good, "{'image': 1}", "[1]", half, '{"image": "\xe9"}']
    with pytest.raises(DataProblems) as caught:
        load_folder("\n".join(lines).encode("latin-1"), name="t.jsonl")
    path = tmp_path / "data" / "t.jsonl"
    assert problems_of(caught) == {
        ("malformed line", f"{path} line 2"),
        ("malformed line", f"{path} line 3"),
        ("not UTF-8", f"{path} line 4"),
        ("not UTF-8", f"{path} line 5"),
    }


def test_a_missing_column_is_named_with_those_that_are_there(load_folder):
    message = "t.csv: the table has no column 'kind'; it has 'image', 'text'. .*=NAME"
    with pytest.raises(ValueError, match=message):
        load_folder("image,text\na.jpg,sea\n", label_column="kind")
    with pytest.raises(ValueError, match="t.csv: the table is empty"):
        load_folder("")
    with pytest.raises(ValueError, match=r"no column for the text \(text, caption"):
        load_folder("image\na.jpg\n")


def test_a_broken_parquet_file_is_named(load_folder):
    with pytest.raises(ValueError, match="t.parquet: cannot be read as Parquet"):
        load_folder(b"PAR1 and nothing more", name="t.parquet")


def test_empty_texts_are_kept_on_demand(load_folder):
    pairs = load_folder(
        "image,text,labels\na.jpg,sea,x\nb.jpg,,x\n", allow_empty_text=True
    )
    assert pairs.text.tolist() == [[1], [0]]
