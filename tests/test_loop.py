import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from tiny_run import IDS, Batches, new_state, run

from modal_aware_jax.training.errors import (
    DataError,
    Interrupted,
    NonFiniteLoss,
    WorkdirError,
    WorkdirInUse,
)
from modal_aware_jax.training.loop import fit
from modal_aware_jax.training.metrics import MetricsWriter, read_metrics
from modal_aware_jax.training.workdir import lock_workdir


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, run(workdir)


def assert_same(fitted, expected):
    assert int(fitted.state.step) == int(expected.state.step)
    ours, theirs = jax.tree.leaves(fitted.state), jax.tree.leaves(expected.state)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert fitted.history == expected.history


def start_child(workdir, *flags):
    script = Path(__file__).parent / "tiny_run.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(workdir), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        },
    )


def wait_for(condition, child, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < end, "the child is too slow"
        time.sleep(0.01)


def last_step(workdir):
    rows = read_metrics(workdir)
    return rows[-1]["step"] if rows else 0


def without_speed(workdir):
    rows = read_metrics(workdir)
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in rows]


def test_killed_mid_epoch_and_resumed_is_bit_identical(undisturbed, tmp_path, capsys):
    child = start_child(tmp_path, "--wait=0.03", "--checkpoint_steps=7")
    wait_for(lambda: last_step(tmp_path) >= 15, child)  # epoch 2 of 4, steps 11 to 20
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert 15 <= last_step(tmp_path) < 40
    assert_same(run(tmp_path), undisturbed[1])
    assert "Going on from step " in capsys.readouterr().out
    assert without_speed(tmp_path) == without_speed(undisturbed[0])


def test_sigterm_saves_and_leaves_with_143(undisturbed, tmp_path):
    child = start_child(tmp_path, "--wait=0.03")
    wait_for(lambda: last_step(tmp_path) >= 5, child)
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM, output
    assert "Stopped by SIGTERM at step " in output and "Traceback" not in output
    assert_same(run(tmp_path), undisturbed[1])
    assert without_speed(tmp_path) == without_speed(undisturbed[0])


def test_ctrl_c_saves_the_step_and_the_second_one_is_the_usual(undisturbed, tmp_path):
    class Impatient(Batches):
        def __next__(self):
            if self.next == 13:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__next__()

    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        Interrupted, match="SIGINT at step 14 of 40; saved in"
    ) as stopped:
        run(tmp_path, Impatient())
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is usual
    assert_same(run(tmp_path), undisturbed[1])


def test_a_signal_cuts_the_validation_short(tmp_path):
    def validate(state):
        calls.append(int(state.step))
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return {"map": 0.5}

    calls = []
    with pytest.raises(Interrupted, match="at step 10 of 20"):
        run(tmp_path, num_epochs=2, validate=validate)
    fitted = run(tmp_path, num_epochs=2, validate=validate)
    assert calls == [10, 10, 20]
    expected = run(tmp_path / "b", num_epochs=2, validate=lambda state: {"map": 0.5})
    assert_same(fitted, expected)
    assert without_speed(tmp_path) == without_speed(tmp_path / "b")


def test_validation_is_recorded_and_the_best_checkpoint_kept(tmp_path):
    scores = iter([0.3, 0.8, 0.5, 0.6, 0.7])
    fitted = run(tmp_path, num_epochs=5, validate=lambda _: {"map": next(scores)})
    assert fitted.best == {"step": 20, "epoch": 2, "score": 0.8}
    assert [row["validation_map"] for row in fitted.history] == [
        0.3,
        0.8,
        0.5,
        0.6,
        0.7,
    ]
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {20, 40, 50}
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert rows[3]["validation_map"] == 0.8 and "validation_map" not in rows[2]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_finished_run_is_not_trained_again(undisturbed, capsys):
    again = run(undisturbed[0], Batches(fails=0))
    assert_same(again, undisturbed[1])
    assert "It is finished: 40 steps were asked for." in capsys.readouterr().out


def test_a_longer_run_goes_on_where_the_shorter_ended(undisturbed, tmp_path, capsys):
    run(tmp_path, num_epochs=2, config={"num_epochs": 2, "ns": (1, 5)})
    fitted = run(tmp_path, num_epochs=4, config={"num_epochs": 4, "ns": (1, 5)})
    assert_same(fitted, undisturbed[1])
    printed = capsys.readouterr().out
    assert "Changed since the checkpoint: num_epochs: 2 -> 4" in printed
    assert printed.count("Changed") == 1


def test_a_run_with_fewer_steps_an_epoch_than_before_is_refused(tmp_path):
    run(tmp_path, num_epochs=1)
    message = "at step 10, after epoch 1: its epochs had more than the 5 steps"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, steps_per_epoch=5)


def test_non_finite_loss_names_step_batch_and_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLoss) as stopped:
        run(tmp_path, Batches(bad=24), checkpoint_steps=3)
    message = str(stopped.value)
    rows = np.random.default_rng(24)
    rows.normal(size=(8, 4))
    names = ", ".join(IDS[i] for i in rows.integers(0, 64, 8))
    assert "Step 25: loss is nan, gradient_norm is nan." in message
    assert f"The batch holds {names}." in message
    good = tmp_path / "checkpoints" / "24"
    assert f"The last good checkpoint is {good}." in message
    assert max(int(p.name) for p in good.parent.iterdir()) == 24
    fitted = run(tmp_path, num_epochs=3)  # mended data: goes on from step 24
    assert_same(fitted, run(tmp_path / "b", num_epochs=3))


def test_a_bad_state_is_never_saved(tmp_path):
    # the batch of the very step that is checkpointed
    with pytest.raises(NonFiniteLoss, match="Step 20: .*checkpoints/10"):
        run(tmp_path, Batches(bad=19))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["10"]


def test_a_failing_reader_saves_first(undisturbed, tmp_path):
    with pytest.raises(DataError, match="step 18 failed: .*im7.jpg.*saved at step 17"):
        run(tmp_path, Batches(fails=17))
    assert_same(run(tmp_path), undisturbed[1])


def test_a_second_run_on_one_workdir_is_refused(tmp_path):
    with lock_workdir(tmp_path):
        with pytest.raises(WorkdirInUse, match=f"in use by process {os.getpid()} on"):
            run(tmp_path)
    with lock_workdir(tmp_path):
        pass


def test_an_unwritable_workdir_is_one_clear_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        WorkdirError, match="file/run cannot be written: Not a directory"
    ):
        run(tmp_path / "file" / "run")


def test_batches_that_end_are_refused(tmp_path):
    class Short(Batches):
        def __next__(self):
            if self.next == 3:
                raise StopIteration
            return super().__next__()

    with pytest.raises(ValueError, match="the batches ended after step 3, of 40"):
        run(tmp_path, Short())


def test_grain_batches_go_on_where_they_were(tmp_path):
    def batches(fails=None):
        def make(i):
            if fails is not None and i >= fails:
                raise FileNotFoundError("gone")
            rng = np.random.default_rng(i)
            return {
                "x": rng.normal(size=(8, 4)).astype(np.float32),
                "index": np.arange(8),
            }

        dataset = grain.MapDataset.range(1000).seed(3).shuffle().map(make)
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=2))

    calls = []

    def place(batch):
        calls.append(1)
        if len(calls) == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    with pytest.raises(Interrupted, match="at step 13"):
        run(tmp_path, batches(), num_epochs=2, place=place)
    fitted = run(tmp_path, batches(), num_epochs=2)
    assert_same(fitted, run(tmp_path / "b", batches(), num_epochs=2))


def test_metrics_are_cut_after_the_step_and_survive_a_torn_line(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": step / 10})
        writer.write(4, {"loss": 0.4, "validation_map": 0.5})
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("5,0.")
    with MetricsWriter(tmp_path, after=2) as writer:
        writer.write(3, {"loss": 0.25})
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "loss"],
            ["1", "0.1"],
            ["2", "0.2"],
            ["3", "0.25"],
        ]


class Later(float):
    """A number of a device that is done with it at a time."""

    at = 0.0

    def copy_to_host_async(self):
        pass

    def __array__(self, dtype=None, copy=None):
        time.sleep(max(0.0, self.at - time.monotonic()))
        return np.asarray(float(self), dtype)


@pytest.mark.parametrize("steps_per_epoch", [1, 3])
def test_the_speed_is_that_of_the_device_from_the_first_step_on(
    steps_per_epoch, tmp_path
):
    """A device that takes 50 ms for a batch of 8, told of its steps at once."""
    free = 0.0

    def update(state, batch, key):
        nonlocal free
        state = state._replace(step=state.step + 1)
        free = max(free, time.monotonic()) + 0.05
        loss = Later(1.0)
        loss.at = free
        return state, {"loss": loss}

    fit(
        update,
        new_state()[1],
        Batches(),
        workdir=tmp_path,
        key=jax.random.key(0),
        num_epochs=2,
        steps_per_epoch=steps_per_epoch,
    )
    speeds = [row["images_per_second"] for row in read_metrics(tmp_path)]
    assert len(speeds) == 2 and all(0 < speed <= 8 / 0.05 for speed in speeds)
