import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_checkpoint import flip_a_bit, largest

from modal_aware_jax.training import processes
from modal_aware_jax.training.errors import WorkdirError
from modal_aware_jax.training.metrics import read_metrics

HERE = pathlib.Path(__file__).parent
SCRIPT = str(HERE / "tiny_processes.py")
CACHE = jax.config.jax_compilation_cache_dir or ""


def start(workdir, count, *flags, module=None):
    """Starts `count` processes of one run; the output of each goes to a file."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workdir.mkdir(exist_ok=True)
    children = []
    for number in range(count):
        together = [
            f"--coordinator=localhost:{port}",
            f"--num_processes={count}",
            f"--process_id={number}",
        ]
        with open(workdir / f"output{number}", "a") as output:
            children.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        *(("-m", module) if module else (SCRIPT, str(workdir))),
                        *flags,
                        *(together if count > 1 else ()),
                    ],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "PYTHONPATH": f"{HERE.parent}:{HERE}",
                        "JAX_COMPILATION_CACHE_DIR": CACHE,
                    },
                )
            )
    return children


def output(workdir, number):
    return (workdir / f"output{number}").read_text()


def finish(workdir, count, *flags):
    """The final state of a run by `count` processes."""
    children = start(workdir, count, *flags)
    for number, child in enumerate(children):
        assert child.wait(timeout=300) == 0, output(workdir, number)
    with np.load(workdir / "final.npz") as saved:
        return dict(saved)


def wait_for_step(workdir, step, children):
    end = time.monotonic() + 300
    while not (rows := read_metrics(workdir)) or rows[-1]["step"] < step:
        for number, child in enumerate(children):
            assert child.poll() is None, output(workdir, number)
        assert time.monotonic() < end, "the children are too slow"
        time.sleep(0.02)


def assert_equal(a, b):
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, finish(workdir, 2)


@pytest.mark.slow
def test_two_processes_train_the_parameters_of_one(undisturbed, tmp_path):
    """Up to 1e-5 of the largest number of an array: sums have another order."""
    one, two = finish(tmp_path, 1), undisturbed[1]
    assert one.keys() == two.keys()
    for name, expected in one.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            two[name], expected, rtol=0, atol=1e-5 * scale + 1e-7, err_msg=name
        )
    steps = [row["step"] for row in read_metrics(undisturbed[0])]
    assert steps == [5, 10, 15, 20, 25, 30, 35, 40]
    assert "train 40/40" in output(undisturbed[0], 0)
    assert "train" not in output(undisturbed[0], 1)  # one of them talks


@pytest.mark.slow
def test_stopped_killed_damaged_and_resumed_is_bit_identical(undisturbed, tmp_path):
    children = start(tmp_path, 2, "--wait=0.05")
    wait_for_step(tmp_path, 5, children)
    children[1].send_signal(signal.SIGTERM)  # to one of them
    assert [child.wait(timeout=60) for child in children] == [143, 143]
    stopped = output(tmp_path, 1).split("Stopped by SIGTERM at step ")[1].split()[0]
    for number in (0, 1):
        text = output(tmp_path, number)
        assert f"Stopped by SIGTERM at step {stopped} of 40" in text
        assert "Traceback" not in text

    children = start(tmp_path, 2, "--wait=0.05")
    wait_for_step(tmp_path, 25, children)
    for child in children:
        child.kill()
    for child in children:
        child.wait()
    assert f"Going on from step {stopped}" in output(tmp_path, 0)

    steps = [p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    newest = max(steps, key=lambda path: int(path.name))
    flip_a_bit(largest(newest))
    assert_equal(finish(tmp_path, 2), undisturbed[1])
    assert f"The checkpoint of step {newest.name} " in output(tmp_path, 0)


@pytest.mark.slow
def test_what_one_process_cannot_read_stops_all_at_one_step(undisturbed, tmp_path):
    children = start(tmp_path, 2, "--fails=13")
    assert [child.wait(timeout=300) for child in children] == [7, 7]
    assert "the batch of step 14 failed: in another process" in output(tmp_path, 0)
    reason = "the batch of step 14 failed: FileNotFoundError: /data/photos/im7.jpg"
    assert reason in output(tmp_path, 1)
    assert_equal(finish(tmp_path, 2), undisturbed[1])


TINY = {
    "data.options.num_pairs": 260,
    "data.options.image_size": 32,
    "data.image_size": 32,
    "data.num_queries": 30,
    "data.num_validation": 31,
    "data.num_train": 150,
    "backbone.options.width": 4,
    "model.text_widths": "(16,8)",
    "training.batch_size": 50,
    "training.num_epochs": 1,
}


@pytest.mark.slow
def test_the_command_line_trains_evaluates_and_encodes_by_two(tmp_path):
    """The scores of one process: the same codes but for a bit near zero."""

    def start_main(name, count, *flags):
        flags = [
            f"--config={HERE.parent / 'configs' / 'shapes.py'}:bits=16",
            f"--workdir={tmp_path / name}",
            *(f"--config.{key}={value}" for key, value in TINY.items()),
            *flags,
        ]
        children = start(tmp_path / name, count, *flags, module="modal_aware_jax.main")
        for number, child in enumerate(children):
            assert child.wait(timeout=1800) == 0, output(tmp_path / name, number)

    start_main("one", 1)
    start_main("two", 2)
    one, two = (read_metrics(tmp_path / name)[-1] for name in ("one", "two"))
    assert one["step"] == two["step"] == 3
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert two["validation_map"] == pytest.approx(one["validation_map"], abs=0.02)
    reports = [
        json.loads((tmp_path / name / "report" / "metrics.json").read_text())
        for name in ("one", "two")
    ]
    one, two = (report["modal_aware"]["map_expected"] for report in reports)
    assert two == pytest.approx(one, abs=0.02)
    assert "The report is" in output(tmp_path / "two", 0)
    assert "The report is" not in output(tmp_path / "two", 1)
    start_main("two", 2, "--mode=encode")
    with np.load(tmp_path / "two" / "encoded.npz") as encoded:
        assert encoded["codes"].shape == (260, 1)
        position = {name: i for i, name in enumerate(encoded["ids"])}
        with np.load(tmp_path / "two" / "codes.npz") as saved:
            rows = [position[name] for name in saved["query_ids"]]
            np.testing.assert_array_equal(encoded["codes"][rows], saved["query"])


def test_alone_everybody_agrees():
    assert processes.is_first() and processes.agree({"a": [1]}) == {"a": [1]}
    assert processes.only_first(lambda: 3) == 3
    rows = np.arange(6).reshape(3, 2)
    assert processes.all_rows(rows) is rows
    assert int(processes.highest(15)) == 15

    def refuse():
        raise WorkdirError("full")

    with pytest.raises(WorkdirError, match="full"):
        processes.only_first(refuse)


def test_half_a_coordinator_is_refused():
    with pytest.raises(ValueError, match="belong together; got host:1, None and None"):
        processes.start("host:1")
    assert jax.process_count() == 1
