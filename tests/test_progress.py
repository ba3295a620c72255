import re
import sys

from modal_aware_jax.training import progress
from modal_aware_jax.training.progress import ProgressBar


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressBar(1000, done=200, label="train", every=15) as bar:
        bar.update(200, "compiling", show=True)
        now[0] += 40
        bar.update(201, "loss 2.0")
        now[0] += 10
        bar.update(221, "loss 1.5")  # 15 seconds have not passed
        now[0] += 10
        bar.update(241, "loss 1.0")  # 40 steps in 20 seconds, 759 are left
        bar.print("epoch 1")
        bar.update(1000, "loss 0.5")
    assert capsys.readouterr().out.splitlines() == [
        "train 200/1000 compiling",
        "train 201/1000 loss 2.0",
        "train 241/1000 loss 1.0 0:06:20 left",
        "epoch 1",
        "train 1000/1000 loss 0.5",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with ProgressBar(4, label="train") as bar:
        bar.update(2, "loss 0.5 10 images/s")
        bar.print("epoch [1] ended")
        bar.update(4, "loss 0.4 10 images/s")
    printed = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().out)
    assert "epoch [1] ended" in printed and "━" in printed
    assert "4/4 loss 0.4 10 images/s" in printed
