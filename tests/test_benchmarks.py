"""The tools that the benchmarks measure with."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
TOOLS = runpy.run_path(str(FOLDER / "alternate.py"), run_name="alternate")
Child, ChildError = TOOLS["Child"], TOOLS["ChildError"]

PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from alternate import serve

def answer(request):
    print("a library says this")
    if "steps" in request:
        return {"wall": request["steps"] * float(sys.argv[2])}
    if request.get("do") == "fail":
        raise ValueError("not this")
    if request.get("do") == "sleep":
        time.sleep(60)
    sys.exit("no more memory")

serve(answer)
"""


def child(seconds=1.0, patience=20.0):
    command = [sys.executable, "-c", PROGRAM, FOLDER, seconds]
    return Child(command, patience=patience)


def test_children_take_turns_and_are_compared():
    with child(2.0) as a, child(4.0) as b:
        answers = TOOLS["take_turns"](
            {"ours": a, "theirs": b}, rounds=3, steps=5, budget=60
        )
    assert [answer["wall"] for answer in answers["theirs"]] == [20.0] * 3
    result = TOOLS["compare"](answers, "ours")
    assert result == {"seconds": {"ours": 10, "theirs": 20}, "ratio": {"theirs": 0.5}}


def test_the_ratio_is_of_neighbours_not_of_medians():
    walls = {"ours": (1, 2, 30), "theirs": (2, 1, 60)}
    answers = {name: [{"wall": w} for w in some] for name, some in walls.items()}
    result = TOOLS["compare"](answers, "ours")
    assert result["seconds"] == {"ours": 2, "theirs": 2}
    assert result["ratio"] == {"theirs": 0.5}  # of 1/2, 2/1 and 30/60


def test_a_spent_budget_ends_the_turns():
    with child() as a:
        answers = TOOLS["take_turns"]({"ours": a}, rounds=9, steps=1, budget=0)
    assert len(answers["ours"]) == 1


def test_a_child_that_fails_ends_or_hangs_is_told():
    with child(patience=0.5) as a, child() as b:
        with pytest.raises(ChildError, match="no answer within"):
            a.ask(do="sleep")
        a._process.kill()
        with pytest.raises(ChildError, match="ValueError: not this"):
            b.ask(do="fail")
        assert b.ask(steps=3) == {"wall": 3.0}  # and goes on
        with pytest.raises(ChildError, match="status 1: no more memory"):
            b.ask(do="leave")


def test_a_table_has_every_name_and_rounds():
    text = TOOLS["table"]([{"a": 1, "b": 0.12345}, {"a": 20_000, "c": None}])
    assert text.splitlines() == [
        "| a | b | c |",
        "|---|---|---|",
        "| 1 | 0.123 |  |",
        "| 20,000 |  |  |",
    ]


@pytest.mark.slow
def test_the_accelerator_script_keeps_what_worked(tmp_path):
    """On a CPU with tiny sizes, and with a data folder that is not there."""
    command = [FOLDER / "accelerator.sh", "--tiny", f"--python={sys.executable}"]
    command += [f"--results={tmp_path}", f"--flickr={tmp_path / 'none'}"]
    command += ["--sections=device,evaluator,search,training"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*-tiny.json")
    found = json.loads(path.read_text())
    assert found["device"]["platform"] == "cpu"
    assert [row["queries run"] for row in found["evaluator"]] == [21, 100]
    assert [row["queries"] for row in found["search"]] == [1, 10, 100]
    (failed,) = found["failed"]
    assert failed.startswith("training: ") and found["training"] is None
    assert failed in path.with_suffix(".md").read_text()


@pytest.mark.slow
def test_the_training_step_is_measured_without_pytorch(tmp_path):
    command = [sys.executable, FOLDER / "train_step.py", "--torch-python="]
    command += ["--sizes=32", "--forms=recommended", "--dtypes=float32", "--rounds=2"]
    command += ["--batch=4", "--width=4", "--wide=32", "--narrow=16", "--words=50"]
    here = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    subprocess.run([*command, f"--out={tmp_path / 'step'}"], check=True, env=here)
    result = json.loads((tmp_path / "step.json").read_text())
    (row,) = result["rows"]
    assert not result["failed"] and row["images/s"] > 0 and row["rounds"] == 2
    assert not any(name.startswith("/") for name in row)
    # The whole network's products, counted by hand: convolutions forward and twice
    # backward are most of it, so the count lies near and above them.
    flops = result["details"][0]["flops a step"]
    assert 3 * conv_flops(32, 4, 4) < 1.5 * flops
    assert flops < 12 * conv_flops(32, 4, 4)


def conv_flops(size, width, batch):
    """Forward, of ResNet-18's convolutions: 2 x products, from its drawing."""
    size //= 2
    total = size**2 * 7 * 7 * 3 * width
    size //= 2
    inputs = width
    for stage in range(4):
        features = width * 2**stage
        size = size // 2 if stage else size
        total += size**2 * 9 * features * (inputs + 3 * features)
        if stage:
            total += size**2 * inputs * features
        inputs = features
    return 2 * batch * total
