"""Files of pairs to files of codes: what comes out, what is left out, what goes on."""

import io
import json
import os
import pathlib
import shutil
import signal
import tarfile
import threading
import time

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modal_aware_jax.data import folder
from modal_aware_jax.encode_many.inputs import Input, find_inputs
from modal_aware_jax.encode_many.on_ray import Actors, _Actor
from modal_aware_jax.encode_many.one_input import Reading
from modal_aware_jax.encode_many.parts import codes_of
from modal_aware_jax.encode_many.run import encode_many
from modal_aware_jax.encode_many.storage import opened, whole_file
from modal_aware_jax.encode_many.worker import Done
from modal_aware_jax.hashing.exported import export_encoder
from modal_aware_jax.modes.encode import encode_with_model
from modal_aware_jax.modes.model_files import FACTS, PROGRAM, load_model_file
from modal_aware_jax.retrieval.index import HammingIndex

WORDS = ("sea", "dog", "tree")
TEXTS = ("a dog by the sea", "Tree!", "nothing known", "sea, sea, tree")


def png(shade):
    """Left half of a shade, right half black."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = shade
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Bits: whether the image is bright at its left, and its three words."""

    def relaxed(images, text):
        bright = images[:, :, 0].mean(axis=(1, 2)) - 100.0
        return jnp.concatenate([bright[:, None], text - 0.5], axis=1)

    path = tmp_path_factory.mktemp("export")
    (path / PROGRAM).write_bytes(
        export_encoder(relaxed, image_size=4, text_features=3, platforms=["cpu"])
    )
    facts = dict(config={}, image_size=4, num_bits=4, num_text_features=3, num_labels=0)
    (path / FACTS).write_text(json.dumps({**facts, "vocabulary": WORDS}))
    return path


def write_parquet(path, count=4):
    images = [{"bytes": png(60 * (i % 4)), "path": f"{i}.png"} for i in range(count)]
    texts = [TEXTS[i % 4] for i in range(count)]
    ids = [f"{path.stem}/{i}" for i in range(count)]
    pq.write_table(pa.table({"id": ids, "image": images, "text": texts}), path)


def write_shard(path, images, texts):
    with tarfile.open(path, "w") as archive:
        for i, (image, text) in enumerate(zip(images, texts, strict=True)):
            for name, content in (("png", image), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{i:04}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def rows_of(output):
    """(id, code's number) of all parts, by their names."""
    found = []
    for path in sorted((output / "parts").glob("*.parquet")):
        table = pq.read_table(path)
        found += zip(
            table.column("id").to_pylist(), codes_of(table)[:, 0].tolist(), strict=True
        )
    return found


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Bits from the lowest: bright (shade 120 and more), sea, dog, tree.
CODES = [0b0110, 0b1000, 0b0001, 0b1011]


def test_codes_of_parquet_a_shard_and_a_folder(model, tmp_path):
    write_parquet(tmp_path / "posts.parquet")
    shades = [png(60 * i) for i in range(4)]
    write_shard(tmp_path / "shard.tar", shades, TEXTS)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, (image, text) in enumerate(zip(shades, TEXTS, strict=True)):
        (photos / f"{i}.png").write_bytes(image)
        (photos / f"{i}.txt").write_text(text)
    places = [str(tmp_path / "*.parquet"), f"{tmp_path}/shard.tar", str(photos)]
    output = tmp_path / "codes"
    encode_many(places, model, str(output), batch_size=3, images_a_piece=3)
    parts = sorted(p.name.split("-")[0] for p in (output / "parts").iterdir())
    assert parts == ["photos", "photos", "posts", "shard"]  # three images, and one
    found = dict(rows_of(output))
    assert [found[f"posts/{i}"] for i in range(4)] == CODES
    assert [found[f"000{i}"] for i in range(4)] == CODES
    assert [found[f"{i}.png"] for i in range(4)] == CODES
    assert not (output / "problems").exists()


def test_codes_are_those_of_the_same_collection_encoded_as_a_whole(model, tmp_path):
    write_parquet(tmp_path / "posts.parquet", count=7)
    pairs = folder.load(
        tmp_path,
        vocabulary=WORDS,
        allow_empty_text=True,
        prepared_dir=tmp_path / "c",
        progress=False,
    )
    path = encode_with_model(load_model_file(model), pairs, tmp_path, batch_size=4)
    encode_many([str(tmp_path / "posts.parquet")], model, str(tmp_path / "o"))
    with np.load(path) as whole:
        expected = dict(zip(whole["ids"].tolist(), whole["codes"][:, 0], strict=True))
    assert dict(rows_of(tmp_path / "o")) == expected


def test_what_is_done_stays_and_what_changed_is_encoded_again(model, tmp_path, capsys):
    for name in "abc":
        write_parquet(tmp_path / f"{name}.parquet")
    output, place = tmp_path / "codes", str(tmp_path / "*.parquet")
    encode_many([place], model, str(output))
    first = {p.name: p.stat().st_mtime_ns for p in (output / "parts").iterdir()}
    write_parquet(tmp_path / "b.parquet", count=2)
    damaged = next((output / "parts").glob("c-*"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    capsys.readouterr()
    encode_many([place], model, str(output))
    assert "1 of 3 inputs were encoded before" in capsys.readouterr().out
    now = {p.name: p.stat().st_mtime_ns for p in (output / "parts").iterdir()}
    assert [name[0] for name in now if now[name] == first[name]] == ["a"]
    assert len(rows_of(output)) == 4 + 2 + 4


@pytest.mark.parametrize("has_table", [False, True])
def test_a_changed_picture_of_a_folder_or_table_is_encoded_again(
    model, tmp_path, capsys, has_table
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "ab":
        (photos / f"{name}.png").write_bytes(png(60))
    if has_table:
        (photos / "all.csv").write_text("image,text\na.png,sea\nb.png,sea\n")
    sea = 0b0010 if has_table else 0
    dark, bright = sea, sea | 0b0001
    output = tmp_path / "codes"
    encode_many([str(photos)], model, str(output))
    assert dict(rows_of(output)) == {"a.png": dark, "b.png": dark}
    (photos / "b.png").write_bytes(png(180))
    encode_many([str(photos)], model, str(output))
    assert dict(rows_of(output)) == {"a.png": dark, "b.png": bright}
    capsys.readouterr()
    encode_many([str(photos)], model, str(output))
    assert "1 of 1 inputs were encoded before" in capsys.readouterr().out


def test_names_that_are_long_or_not_utf8_stop_nothing(model, tmp_path):
    photos, shards = tmp_path / "photos", tmp_path / "shards"
    photos.mkdir()
    shards.mkdir()
    (photos / "a.png").write_bytes(png(60))
    (photos / os.fsdecode(b"b\xff.png")).write_bytes(png(60))
    long = "é" * 120  # 244 bytes with its suffix
    for name in (long, os.fsdecode(b"c\xff"), "d"):
        write_shard(shards / f"{name}.tar", [png(60)], ["sea"])
    output = tmp_path / "codes"
    places = [str(photos), str(shards)]
    encode_many(places, model, str(output))
    assert sorted(name for name, _ in rows_of(output)) == ["0000"] * 3 + ["a.png"]
    (listed,) = (output / "problems").iterdir()
    problem = json.loads(listed.read_text())
    assert problem["kind"] == "not UTF-8" and "b\udcff.png" in problem["where"]
    assert len(find_inputs([f"{shards}/*.tar"], images_a_piece=10)) == 3


def test_rays_rows_are_of_arrow_whatever_the_name(model, tmp_path):
    path = tmp_path / os.fsdecode(b"c\xff.tar")
    write_shard(path, [png(60)], ["sea"])
    (source,) = find_inputs([str(tmp_path)], images_a_piece=10)
    options = dict(batch_size=1, reading=tuple(Reading()))
    actor = _Actor(str(model), str(tmp_path / "codes"), **options)
    row = actor({"source": json.dumps(source)})
    (row,) = pa.Table.from_pylist([row]).to_pylist()
    assert Done(*json.loads(row["done"])) == Done(str(path), 1, 0, 0, "")


def test_an_output_among_the_inputs_is_refused(model, tmp_path):
    (tmp_path / "a.png").write_bytes(png(60))
    for output in (tmp_path, tmp_path / "codes"):
        with pytest.raises(ValueError, match="parts would be taken for inputs"):
            encode_many([f"{tmp_path}/"], model, str(output))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / "in").mkdir()
    write_shard(tmp_path / "in" / "a.tar", [png(60)], ["sea"])
    encode_many([f"{tmp_path}/in"], model, f"{tmp_path}/in/../in codes")


def test_what_cannot_be_read_is_left_out_and_told(model, tmp_path, capsys):
    good = png(120)
    write_shard(tmp_path / "a.tar", [good, b"no image", good], ["sea", "dog", "dog"])
    (tmp_path / "b.tar").write_bytes(b"\x00garbage" * 200)
    write_shard(tmp_path / "c.tar", [good], ["tree"])
    place, output = [str(tmp_path / "*.tar")], tmp_path / "codes"
    with pytest.raises(ValueError, match="1 of 3 inputs could not be read.*b.tar"):
        encode_many(place, model, str(output))
    assert rows_of(output) == [("0000", 0b0011), ("0002", 0b0101), ("0000", 0b1001)]
    (listed,) = (output / "problems").iterdir()
    (line,) = listed.read_text().splitlines()
    assert json.loads(line)["kind"] == "unreadable image"
    assert "0001 in" in json.loads(line)["where"]
    write_shard(tmp_path / "a.tar", [good, good], ["sea", "dog"])  # mended
    (tmp_path / "b.tar").unlink()
    encode_many(place, model, str(output))
    assert not list((output / "problems").iterdir())


def test_codes_of_two_models_do_not_mix(model, tmp_path):
    write_parquet(tmp_path / "a.parquet")
    other = tmp_path / "other"
    other.mkdir()
    blob = export_encoder(
        lambda images, text: 0.5 - text,
        image_size=4,
        text_features=3,
        platforms=["cpu"],
    )
    (other / PROGRAM).write_bytes(blob)
    (other / FACTS).write_text((model / FACTS).read_text())
    encode_many([str(tmp_path / "a.parquet")], model, str(tmp_path / "o"))
    with pytest.raises(ValueError, match="made otherwise .*num_bits 4, now 3"):
        encode_many([str(tmp_path / "a.parquet")], other, str(tmp_path / "o"))
    (other / FACTS).unlink()
    with pytest.raises(ValueError, match="keep config.json beside the model"):
        encode_many([str(tmp_path / "a.parquet")], other, str(tmp_path / "o2"))


def test_columns_are_named_by_flags_of_this_program(model, tmp_path):
    (tmp_path / "a.csv").write_text("picture,text\na.png,sea\n")
    with pytest.raises(ValueError, match=r"read with --image_column=NAME and --text"):
        encode_many([str(tmp_path / "a.csv")], model, str(tmp_path / "codes"))


def test_a_table_without_rows_is_told(model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("image,text\n")
    encode_many([str(tmp_path / "a.csv")], model, str(tmp_path / "codes"))
    assert "1 were left out" in capsys.readouterr().out
    (listed,) = (tmp_path / "codes" / "problems").iterdir()
    assert "the table has no row" in listed.read_text()


def test_a_classifier_gives_no_codes(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "classifier")
    facts = json.loads((other / FACTS).read_text())
    (other / FACTS).write_text(json.dumps({**facts, "task": "classification"}))
    with pytest.raises(ValueError, match="classification, which has no codes"):
        encode_many([str(tmp_path)], other, str(tmp_path / "codes"))
    assert not (tmp_path / "codes").exists()


def test_all_parts_become_an_index(model, tmp_path):
    write_parquet(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet")
    path = tmp_path / "all.index"
    encode_many(
        [str(tmp_path / "*.parquet")], model, str(tmp_path / "o"), index=str(path)
    )
    distances, ids = HammingIndex.load(path).search(np.array([[0b1011]], np.uint32), 2)
    assert distances.tolist() == [[0, 0]] and ids.tolist() == [["a/3", "b/3"]]
    write_shard(tmp_path / "c.tar", [png(9)], ["sea"])
    write_shard(tmp_path / "d.tar", [png(9)], ["sea"])
    with pytest.raises(ValueError, match="ids must be new.*'0000'"):
        encode_many(
            [str(tmp_path / "*.tar")], model, str(tmp_path / "p"), index=str(path)
        )
    assert len(HammingIndex.load(path)) == 8  # the file of before


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "no such file or folder"),
        ("notes.txt", ".txt is none of"),
        ("empty", "no .parquet, .tar file is there"),
        ("*.nothing", "no .parquet, .tar file is there"),
        ("*.txt", "patterns are of .parquet and .tar"),
        ("ftp://there/x", "cannot be opened"),
        ("", "Name what to encode"),
    ],
)
def test_places_without_inputs_are_told(place, message, tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    if place and "://" not in place:
        place = str(tmp_path / place)
    with pytest.raises(ValueError, match=message):
        find_inputs([place], images_a_piece=10)


def test_a_table_of_a_folder_is_found_as_training_finds_it(tmp_path):
    for name in ("PAIRS.CSV", "config.json", "a.jpg"):
        (tmp_path / name).touch()
    (found,) = find_inputs([str(tmp_path)], images_a_piece=10)
    assert found.address.endswith("/PAIRS.CSV")


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path):
    (tmp_path / "br[1]").mkdir()
    (tmp_path / "br[1]" / "good.parquet").touch()
    place = str(tmp_path / "br[1]" / "good.parquet")
    (found,) = find_inputs([place], images_a_piece=10)
    assert found.address == place


def test_names_of_parts_differ_where_files_have_one_name():
    names = {Input(f"/{folder}/0.tar", "").name for folder in "abc"}
    assert len(names) == 3 and all(name.startswith("0-") for name in names)
    assert Input("/a/0.tar", "1").name == Input("/a/0.tar", "2").name


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    files, path = opened(str(tmp_path / "parts" / "a"))
    with pytest.raises(KeyboardInterrupt), whole_file(files, path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert files_of(tmp_path) == {}
    with whole_file(files, path) as stream:
        stream.write(b"all")
    assert files_of(tmp_path) == {pathlib.Path("parts/a"): b"all"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, and of what it leaves open
def test_two_workers_one_killed_give_what_one_process_gives(model, tmp_path):
    ray = pytest.importorskip("ray")
    for i in range(12):
        write_parquet(tmp_path / f"{i:02}.parquet", count=200)
    place = [str(tmp_path / "*.parquet")]
    encode_many(place, model, str(tmp_path / "alone"))

    killed = []

    def kill():
        """A worker, when the first part is there."""
        while not list((tmp_path / "ray").glob("parts/*.parquet")):
            time.sleep(0.02)
        for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            if not killed and b"ray::MapWorker" in process.read_bytes():
                os.kill(int(process.parent.name), signal.SIGKILL)
                killed.append(process.parent.name)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        encode_many(place, model, str(tmp_path / "ray"), actors=Actors(2, cpus=0.5))
    finally:
        ray.shutdown()
    assert killed
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "alone")
