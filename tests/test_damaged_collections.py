"""Whatever a file of a collection holds, one clear message names it, and no more."""

import io
import json
import os
import tarfile
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image
from tiny_archives import jpeg, write_flickr

from modal_aware_jax.data import archive, flickr25k, folder, regular_file
from modal_aware_jax.data.folder_items import read_items
from modal_aware_jax.data.problems import DataProblems, Problem, describe
from modal_aware_jax.data.readers.tables import find_tables
from modal_aware_jax.data.stored_image import ImageProblem, to_stored

TEXTS = ["a red boat", "the lake", "red dog", "sea"]
ROWS = [{"image": f"{i}.jpg", "text": t, "label": i % 2} for i, t in enumerate(TEXTS)]


def table_csv():
    lines = ["image,text,label,split"]
    lines += [f'{i}.jpg,"{text}, so",{i % 2},train' for i, text in enumerate(TEXTS)]
    return "\n".join(lines).encode()


def table_parquet():
    rows = [
        {**row, "image": {"bytes": jpeg(i, (16, 16)), "path": row["image"]}}
        for i, row in enumerate(ROWS)
    ]
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def table_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for i, text in enumerate(TEXTS):
            for name, content in (
                (f"{i}.jpg", jpeg(i, (16, 16))),
                (f"{i}.txt", text.encode()),
                (f"{i}.json", json.dumps({"label": i}).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def table_mat():
    buffer = io.BytesIO()
    pictures = np.arange(4 * 8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3, 4)
    tags = np.eye(4, 5, dtype=np.uint8)
    scipy.io.savemat(buffer, {"IAll": pictures, "YAll": tags, "LAll": tags[:, :2]})
    return buffer.getvalue()


def table_hdf5():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["images"] = np.zeros((4, 3, 9, 8), np.uint8)
        file["YAll"], file["LAll"] = np.eye(5, 4), np.eye(2, 4)
    return buffer.getvalue()


def table_coco():
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(4)]
    annotations = [{"image_id": i, "caption": t} for i, t in enumerate(TEXTS)]
    return json.dumps({"images": images, "annotations": annotations}).encode()


TABLES = {
    "t.csv": table_csv,
    "t.jsonl": lambda: "\n".join(map(json.dumps, ROWS)).encode(),
    "t.parquet": table_parquet,
    "t.tar": table_tar,
    "t.mat": table_mat,
    "v73.mat": table_hdf5,
    "t.json": table_coco,
}


def damaged(content, random):
    """Truncated, with bits flipped, with a part repeated, taken away or made huge."""
    content = bytearray(content)
    kind = random.integers(5)
    place = int(random.integers(len(content)))
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        return bytes(content[place:])
    if kind == 2:
        for at in random.integers(0, len(content), 1 + int(random.integers(8))):
            content[at] ^= 1 << int(random.integers(8))
        return bytes(content)
    length = int(random.integers(1, 64))
    if kind == 3:
        return bytes(content[:place] + b"\xff" * length + content[place + length :])
    return bytes(
        content[:place] + content[place : place + length] * 9 + content[place:]
    )


def read_all(source):
    """Everything of a collection but the writing of its preparation."""
    columns = dict.fromkeys(("image", "text", "label", "one_hot", "split"))
    items = read_items(find_tables(source), columns)
    scan = folder._scan(
        items,
        given_split=True,
        tag_separator=None,
        label_names=None,
        no_label=(),
        vocabulary=("red",),
        min_word_count=1,
        max_words=None,
        allow_empty_text=True,
        keep_without_image=False,
    )
    problems = list(scan.problems)
    for pair in scan.pairs:
        try:
            to_stored(pair.read_image(), 16)
        except ImageProblem as error:
            problems.append(Problem(error.kind, pair.where, str(error)))
        except Exception as error:  # as prepare.py takes them
            problems.append(Problem("unreadable image", pair.where, str(error)))
    return scan, problems


@pytest.mark.filterwarnings("ignore")  # of libraries, about what they read
@pytest.mark.parametrize("name", list(TABLES))
def test_a_damaged_table_is_read_or_named(name, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for i in range(4):
        (data / f"{i}.jpg").write_bytes(jpeg(i, (16, 16)))
    whole = TABLES[name]()
    path = data / name
    path.write_bytes(whole)
    scan, problems = read_all(data)
    assert len(scan.pairs) == 4 and not problems
    before = sorted(p.name for p in tmp_path.rglob("*"))
    random = np.random.default_rng(sum(name.encode()))
    outcomes = set()
    for _ in range(50):
        path.write_bytes(damaged(whole, random))
        try:
            _, problems = read_all(data)
        except ValueError as error:
            outcomes.add("refused")
            told = str(error)
            assert name in told or str(data) in told, told
            assert "\n" not in told and len(told) < 2000
        else:
            outcomes.add("problems" if problems else "read")
            assert len(describe(problems)) < 20_000
    assert "refused" in outcomes or "problems" in outcomes
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


# Bombs, escapes, links


@pytest.fixture
def load(tmp_path):
    def load(**options):
        options = {"min_word_count": 1, "progress": False, **options}
        prepared = tmp_path / "prepared"
        return folder.load(tmp_path / "data", prepared_dir=prepared, **options)

    (tmp_path / "data").mkdir()
    return load


def write_table(data, *images):
    lines = [f"{image},sea,a" for image in images]
    (data / "t.csv").write_text("\n".join(["image,text,label", *lines]))


def test_paths_that_lead_out_of_the_folder_are_refused(load, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    write_table(tmp_path / "data", "../secret.jpg", str(tmp_path / "secret.jpg"), "a\0")
    with pytest.raises(DataProblems) as caught:
        load()
    kinds = [problem.kind for problem in caught.value.problems]
    assert kinds == ["outside path", "outside path", "missing image"]
    assert "t.csv line 2: ../secret.jpg leads out of" in str(caught.value)


def test_links_are_followed_to_plain_files_only(load, tmp_path):
    data = tmp_path / "data"
    (data / "real.jpg").write_bytes(jpeg(1))
    os.symlink("real.jpg", data / "good.jpg")
    os.symlink("loop.jpg", data / "loop.jpg")
    os.symlink("/dev/zero", data / "endless.jpg")
    os.mkfifo(data / "pipe.jpg")  # reading it would wait for ever
    (data / "folder.jpg").mkdir()
    write_table(
        data, "good.jpg", "loop.jpg", "endless.jpg", "pipe.jpg", "folder.jpg", "no.jpg"
    )
    with pytest.raises(DataProblems) as caught:
        load()
    told = {p.where.split()[0].split("/")[-1]: p for p in caught.value.problems}
    assert set(told) == {"loop.jpg", "endless.jpg", "pipe.jpg", "folder.jpg", "no.jpg"}
    assert "no plain file" in told["pipe.jpg"].message
    assert "no plain file" in told["endless.jpg"].message
    assert load(on_problem="skip").ids.tolist() == ["good.jpg"]


def test_members_of_a_shard_that_lead_elsewhere_are_not_read(load, tmp_path):
    def add(tar, name, content=b"", **header):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in header.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content))

    with tarfile.open(tmp_path / "data" / "t.tar", "w") as tar:
        add(tar, "../../out/1.jpg", jpeg(1))
        add(tar, "../../out/1.txt", b"sea")
        add(tar, "2.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "2.txt", b"sky")
        add(tar, "/etc/3.jpg", jpeg(3))
        add(tar, "/etc/3.txt", b"x" * (2 << 20))
    with pytest.raises(DataProblems) as caught:
        load()
    told = str(caught.value)
    assert "2.jpg in" in told and "is a link or no plain file" in told
    assert "3.txt has 2,097,152 bytes of text" in told
    before = {p for p in tmp_path.rglob("*") if tmp_path / "prepared" not in p.parents}
    assert load(on_problem="skip").images[:] == [jpeg(1)]
    after = {p for p in tmp_path.rglob("*") if tmp_path / "prepared" not in p.parents}
    assert after == before and not (tmp_path.parent / "out").exists()


def test_a_header_that_leads_back_does_not_read_for_ever(load, tmp_path):
    content = bytearray(table_tar())
    content[124:136] = b"\xff" * 12  # the first member's size: negative, in base 256
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    (tmp_path / "data" / "t.tar").write_bytes(content)
    with pytest.raises(ValueError, match="t.tar: cannot be read as a tar archive"):
        load()


def test_a_zip_bomb_and_a_file_without_end_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "check_size", _check_size_of(10_000))
    bomb = {"mirflickr/im1.jpg": b"\0" * 100_000}
    write_flickr(tmp_path / "data", change_images=bomb)
    with pytest.raises(DataProblems, match="im1.jpg in .* has 100,000 bytes; at most"):
        flickr25k.load(
            tmp_path / "data",
            prepared_dir=tmp_path / "prepared",
            min_tag_count=1,
            progress=False,
        )
    with zipfile.ZipFile(tmp_path / "data" / "mirflickr25k.zip") as file:
        assert file.getinfo("mirflickr/im1.jpg").compress_size < 1000
    (tmp_path / "large").write_bytes(b"123")
    with pytest.raises(OSError, match="it has 3 bytes; at most 2 are read"):
        regular_file.read_regular(tmp_path / "large", limit=2)


def _check_size_of(limit):
    return lambda size: regular_file.check_size(size, limit)


def test_a_program_is_no_image():
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "EPS")
    with pytest.raises(ImageProblem, match="no image that PIL can read"):
        to_stored(buffer.getvalue(), None)


def test_huge_headers_and_cells_are_told_briefly(load, tmp_path):
    path = tmp_path / "data" / "t.csv"
    path.write_text("x" * 100_000 + ",y\n1,2\n")
    with pytest.raises(ValueError) as caught:
        load()
    assert len(str(caught.value)) < 1200
    (tmp_path / "data" / "a.jpg").write_bytes(jpeg())
    path.write_text("image,text,label,id\na.jpg,sea,a," + "9" * 100_000 + "\n")
    with pytest.raises(DataProblems, match="an id of 100,000 characters"):
        load()
    path.unlink()
    deep = '{"image": "a.jpg", "text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "data" / "t.jsonl").write_text(deep)
    with pytest.raises(DataProblems, match="t.jsonl line 1: no JSON") as caught:
        load()
    assert len(str(caught.value)) < 1500


def test_a_table_changed_under_the_same_size_and_time_is_noticed(load, tmp_path):
    data = tmp_path / "data"
    (data / "a.jpg").write_bytes(jpeg())
    write_table(data, "a.jpg")
    assert load().label_names == ("a",)
    facts = (data / "t.csv").stat()
    (data / "t.csv").write_text((data / "t.csv").read_text().replace(",a", ",b"))
    os.utime(data / "t.csv", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (data / "t.csv").stat().st_size == facts.st_size
    assert load().label_names == ("b",)
