"""Small versions of `benchmarks/faults.py`; more in test_loop and test_checkpoint."""

import multiprocessing
import os
import resource
import signal

import numpy as np
import pytest
from test_loop import assert_same, undisturbed
from test_pipeline import collection, train
from tiny_run import run

from modal_aware_jax.training.errors import CheckpointError, WorkdirError
from modal_aware_jax.training.reading import Reading, ReadingFailed
from modal_aware_jax.training.signals import StopSignals

__all__ = ["undisturbed"]  # the fixture


def test_files_that_cannot_be_written_in_full_lose_nothing(undisturbed, tmp_path):
    """As on a full disk: the operating system refuses the end of a checkpoint."""
    files = (undisturbed[0] / "checkpoints").rglob("*")
    largest = max(file.stat().st_size for file in files if file.is_file())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises((CheckpointError, WorkdirError)) as failed:
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(failed.value)
    assert str(tmp_path) in message and "same command" in message
    assert_same(run(tmp_path), undisturbed[1])


@pytest.mark.slow
def test_a_reading_process_that_dies_is_an_error_and_no_hang():
    iterator = iter(train(collection(), np.arange(23), workers=1))
    reading = Reading(iterator, StopSignals())
    first = reading.next()
    position = reading.position
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ReadingFailed) as failed:
        for _ in range(100):  # what was read ahead still comes
            reading.next()
    assert "died" in str(failed.value.error) or "exit" in str(failed.value.error)
    again = Reading(iter(train(collection(), np.arange(23), workers=1)), StopSignals())
    np.testing.assert_array_equal(again.next()["index"], first["index"])
    assert again.position == position
