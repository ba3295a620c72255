"""New posts to classes: nothing is dropped, and an export says what its run says."""

import contextlib
import csv
import io
import json
import pathlib
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from ml_collections import ConfigDict
from PIL import Image
from test_classification_task import posts_config
from test_classifiers import posts_config as token_config
from test_methods import tiny  # noqa: F401
from test_sentence_vectors import truth, write_model  # noqa: F401

from modal_aware_jax import build, main, modes
from modal_aware_jax.data.new_posts import Post, look, read_posts
from modal_aware_jax.modes.predict import Prediction, Predictor, line_of
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.checkpoint import Checkpointer


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), color).save(file, "PNG")
    return file.getvalue()


class Known:
    """An encoder of texts that knows 'good' and 'bad'."""

    def split(self, text):
        words = text.split()
        known = [w for w in words if w in ("good", "bad")]
        return known, [w for w in words if w not in known]

    def encode(self, documents):
        return np.array([[d.count("good"), d.count("bad")] for d in documents], float)


def predictor(one_class=True):
    """Logits from the words, and from how bright the picture is; counts its batches."""
    seen = []

    def logits(batch):
        seen.append(batch)
        bright = batch["image"].mean(axis=(1, 2, 3)) / 255 - 0.5
        bright = np.where(batch["has_image"], bright, 0)
        return batch["text"] + np.stack([bright, -bright], axis=1)

    return Predictor(logits, Known(), 8, ("good", "bad"), one_class), seen


def broken():
    return b"\x89PNG not at all"


def gone():
    raise FileNotFoundError(2, "No such file or directory")


POSTS = [
    Post("both", lambda: png((255, 255, 255)), "good"),
    Post("no picture", None, "bad bad"),
    Post("no words", lambda: png((0, 0, 0)), "  "),
    Post("emoji only", lambda: png((255, 255, 255)), "😀 😀"),
    Post("long", None, "good " * 2000),
    Post("broken", broken, "bad"),
    Post("gone", gone, ""),
    Post("nothing", None, "你好"),
    Post("t.csv line 9", None, "", "../x.jpg leads out of the folder"),
]


def test_every_post_has_a_prediction_or_a_line():
    reader, batches = predictor()
    found = list(modes.predict(reader, POSTS))
    assert [p.id for p in found] == [post.id for post in POSTS]
    said = [p.classes[0] if p.classes else None for p in found]
    assert said == ["good", "bad", "bad", "good", "good", "bad", None, None, None]
    notes = [p.note for p in found]
    assert notes[:5] == ["", "no picture", "no words", "no known words", "no picture"]
    assert notes[5].startswith("its picture cannot be read (the file is no image")
    gone = "not predicted: its picture cannot be read (No such file or directory)"
    assert notes[6] == f"{gone}, no words"
    assert notes[7] == "not predicted: no picture, no known words"
    assert notes[8] == "not predicted: ../x.jpg leads out of the folder"
    np.testing.assert_allclose(found[0].probabilities.sum(), 1)
    (batch,) = batches
    assert batch["has_image"].tolist()[:4] == [True, False, True, True]
    assert batch["has_text"].tolist()[:4] == [True, True, False, False]
    assert len(list(modes.predict(reader, POSTS * 5))) == 45 and len(batches) == 3


def test_several_labels_are_those_of_a_half_and_more():
    reader, _ = predictor(one_class=False)
    (found,) = modes.predict(reader, [Post("both", None, "good bad")])
    assert found.classes == ["good", "bad"]
    assert line_of(found) == "both  good, bad (0.731)  [no picture]"
    (found,) = modes.predict(reader, [Post("dark", lambda: png((0, 0, 0)), "")])
    assert found.classes == ["bad"]
    assert line_of(Prediction("x", [], None, "not predicted")) == "x  [not predicted]"


def test_numbers_that_are_not_finite_are_told():
    reader, _ = predictor()
    reader = reader._replace(logits=lambda batch: np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="gave numbers that are not finite"):
        list(modes.predict(reader, POSTS[:1]))


def test_a_table_is_read_in_its_order(tmp_path):
    (tmp_path / "a.png").write_bytes(png((255, 255, 255)))
    rows = [
        ("image", "text"),
        ("a.png", "good"),
        ("", "bad"),
        ("missing.png", ""),
        ("../a.png", "good"),
    ]
    with open(tmp_path / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    posts = read_posts(tmp_path)
    assert [bool(p.read) for p in posts] == [True, False, True, False]
    assert [p.text for p in posts] == ["good", "bad", "", ""]
    assert "leads out of" in posts[-1].problem
    with pytest.raises(ValueError, match="there is no file or folder .*nowhere"):
        read_posts(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="image_column=NAME and .*=configs/folder.py"):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "a.csv").write_text("words,text\nsea,good\n")
        read_posts(tmp_path / "bare")
    (tmp_path / "bare" / "b.csv").write_text("image,text\n")
    with pytest.raises(ValueError, match="Say which one to read with --table=FILE"):
        read_posts(tmp_path / "bare")
    reader, _ = predictor()
    found = list(modes.predict(reader, posts))
    path = tmp_path / "out" / "predicted.csv"
    modes.write_predictions_table(path, found, reader.class_names)
    written = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["predicted"] for row in written] == ["good", "bad", "", ""]
    assert float(written[0]["good"]) == pytest.approx(found[0].probabilities[0], 1e-4)
    assert written[2]["good"] == "" and "No such file" in written[2]["note"]


def test_a_post_that_cannot_be_read_stops_no_other(tmp_path):
    pictures = np.full((2, 8, 9, 3), 100.0)
    pictures[1] -= 300  # less their mean: no colours
    content = {"IAll": pictures.transpose(1, 2, 3, 0), "YAll": np.eye(2, 5)}
    scipy.io.savemat(tmp_path / "t.mat", content)
    seen = [look(post, 4) for post in read_posts(tmp_path)]
    assert (seen[0].pixels == 100).all() and not seen[0].problem
    assert "numbers are not colours" in seen[1].problem
    (tmp_path / "t.mat").unlink()
    rows = [{"image": "a.jpg", "text": [{"raw": "sea"}]}, {"text": ["sea", "dog"]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read_posts(tmp_path)
    assert first.problem == "the text is no text but a list of dict"
    assert second.text == "sea, dog"


def test_what_is_asked_for_must_be_clear(tmp_path):
    with pytest.raises(ValueError, match="give a picture with --image, words with"):
        modes.posts_to_predict(None, " ", None)
    with pytest.raises(ValueError, match="give --table, or --image and --text, not"):
        modes.posts_to_predict(None, "good", tmp_path)
    (post,) = modes.posts_to_predict(pathlib.Path("x/a.png"), "", None)
    assert post.id == "a.png"
    with pytest.raises(ValueError, match="which the task hashing does not learn"):
        modes.need_classes("hashing")


@pytest.mark.parametrize("given", [{"mode": "train"}, {"model": "x"}, {"codes": "x"}])
def test_a_step_is_of_a_run(given):
    args = {"mode": "encode", "model": None, "codes": None, "step": "best", **given}
    with pytest.raises(ValueError, match="--step names a checkpoint of a run"):
        main.run(types.SimpleNamespace(**args))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "sea"}, "--text is for --mode=search and predict, not encode"),
        ({"mode": "train", "output": "x"}, "encode, search, predict and export, not"),
        ({"mode": "predict", "bits": 8}, "encode, search, serve and export, not"),
        ({"mode": "search", "port": 0}, "--port is for --mode=serve, not search"),
        ({"mode": "search", "output": "x"}, "--output is for a search by --index"),
        ({"mode": "search", "codes": "x"}, "name it, --index=FILE"),
        ({"mode": "search", "index": "x", "text": "sea"}, "by --codes=FILE.npz, not"),
        ({"mode": "serve", "model": "x", "bits": 8}, "--bits is for a run: export it"),
        ({"mode": "evaluate", "codes": "x", "bits": 8}, "have a length already"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(given, message):
    args = {"mode": "encode", "model": None, "codes": None, "step": "latest"}
    args = types.SimpleNamespace(**{**args, "index": None, "output": None, **given})
    with pytest.raises(ValueError, match=message):
        main.run(args)


@pytest.mark.parametrize("mode", ["encode", "predict", "search"])
def test_an_output_that_cannot_be_written_is_refused_first(mode, tmp_path):
    args = {"mode": mode, "model": None, "codes": None, "step": "latest"}
    args["index"] = "x" if mode == "search" else None
    for output, message in (
        (tmp_path, "cannot be written: it is a folder. Name a file"),
        ("/dev/null", "/dev/null cannot be written: it is no plain file"),
        ("/dev/null/codes.npz", "/dev/null is no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            main.run(types.SimpleNamespace(**args, output=str(output)))


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("hashing", {}, "give an image with --image, a text with --text, or both"),
        ("hashing", {"image": "no.jpg"}, "no.jpg cannot be read as an image"),
        ("hashing", {"text": "sea", "target": "text"}, "of hashing are of pairs"),
        ("matching", {"text": "sea", "image": "no.jpg"}, "asks with one modality"),
        ("matching", {"image": "no.jpg"}, "no.jpg cannot be read as an image"),
    ],
)
def test_a_search_for_nothing_is_refused_before_anything_is_read(task, given, message):
    config = ConfigDict({"task": task})  # names no data to read
    args = {"mode": "search", "model": None, "codes": None, "step": "latest"}
    args |= dict.fromkeys(("coordinator", "num_processes", "process_id", "index"))
    args |= {"distributed": False, "output": None, "config": config, "workdir": "x"}
    args |= {"bits": None, "image": None, "text": "", "target": ""}
    with pytest.raises(ValueError, match=message):
        main.run(types.SimpleNamespace(**args | given))


def by_the_command_line(model, workdir, words):
    """What --mode=predict prints of a text."""
    nothing = dict.fromkeys(("image", "table", "output", "config", "coordinator"))
    nothing |= dict.fromkeys(("num_processes", "process_id", "codes", "index"))
    args = types.SimpleNamespace(
        **nothing,
        mode="predict",
        model=str(model),
        workdir=str(workdir),
        text=words,
        distributed=False,
        step="latest",
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main.run(args)
    assert (workdir / "predicted.csv").read_text().startswith("id,predicted,note,")
    return printed.getvalue()


def checkpointed(experiment, workdir):
    """A checkpoint of the initial weights, as if three steps an epoch were trained."""
    _, params, stats = updates.split_model(experiment.model, experiment.is_trained)
    state = updates.init_state(params, stats, experiment.make_optimizer(3))
    state = state._replace(step=jnp.int32(6))
    record = {"epoch": 2, "history": [], "best": None}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(6, state, data=None, run=record)


def test_an_export_predicts_as_its_run(tmp_path):
    config = posts_config("text")
    with config.unlocked():
        config.model.num_bits = 64  # as configs/folder.py has it for every task
    experiment = build.experiment(config)
    checkpointed(experiment, tmp_path)
    run = modes.predictor_of_run(experiment, tmp_path)
    folder = modes.export_run(experiment, tmp_path, platforms=["cpu"])
    words = " ".join(experiment.collection.vocabulary[:3])
    posts = [Post("a", None, words), Post("b", lambda: png((9, 9, 9)), "xyzzy")]
    expected = list(modes.predict(run, posts))
    told = by_the_command_line(folder, tmp_path, words)
    assert told.startswith(f"text  {expected[0].classes[0]} (")
    assert "[no picture]\nWrote" in told
    bare = tmp_path / "encoder.stablehlo"
    shutil.copy(folder / bare.name, bare)
    with pytest.raises(ValueError, match="not known. Keep config.json beside it"):
        modes.predictor_of_model(modes.load_model_file(bare))
    for path in (folder, folder / "model.safetensors"):
        exported = modes.predictor_of_model(modes.load_model_file(path))
        assert exported.class_names == experiment.collection.label_names
        for ours, theirs in zip(modes.predict(exported, posts), expected, strict=True):
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, 1e-4)
            assert (ours.classes, ours.note) == (theirs.classes, theirs.note)


@pytest.mark.parametrize(
    "kind",
    ["word_tokens", "word_pieces", pytest.param("word_ids", marks=pytest.mark.slow)],
)
def test_an_export_makes_its_own_tokens(kind, tiny, truth, tmp_path):  # noqa: F811
    folder = write_model(tmp_path / "m", truth)
    changes = {"data.text": kind, "data.sentence_model": str(folder)}
    if kind != "word_tokens":  # longer texts are cut where the run cuts them
        changes["data.num_tokens"] = 4
    experiment = build.experiment(token_config("concat", **changes))
    checkpointed(experiment, tmp_path)
    run = modes.predictor_of_run(experiment, tmp_path)
    out = modes.export_run(experiment, tmp_path, platforms=["cpu"])
    shutil.rmtree(folder)  # the export needs it no more
    exported = modes.predictor_of_model(modes.load_model_file(out))
    words = "sea boat dog sea x " + " ".join(experiment.collection.vocabulary[:3])
    posts = [
        Post("both", lambda: png((9, 99, 9)), words),
        Post("words", None, "sea"),
        Post("picture", lambda: png((9, 9, 9)), ""),
        Post("none", None, ""),
    ]
    ours, theirs = list(modes.predict(exported, posts)), list(modes.predict(run, posts))
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        assert (one.classes, one.note) == (other.classes, other.note)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
    assert ours[3].probabilities is theirs[3].probabilities is None
    assert abs(ours[0].probabilities - ours[1].probabilities).max() > 1e-3
    with pytest.raises(ValueError, match="program alone makes. Give the folder"):
        modes.load_model_file(out / "model.safetensors")
    if kind == "word_tokens":
        return
    (out / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="lacks tokenizer.json, which belongs to its"):
        modes.load_model_file(out)
