"""Child processes that take turns, so that whatever else a machine does hits all.

Each side of a comparison runs in a process of its own, under its own Python: a line of
JSON asks for work, a line of JSON answers. Nothing here imports JAX or PyTorch.
"""

import contextlib
import json
import os
import pathlib
import platform
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time
import traceback


class ChildError(RuntimeError):
    """A child that failed, ended or did not answer in time; says its last words."""


class Child:
    """A process that answers lines of JSON; also a context that ends it.

    Args:
      command: argument list, made to `serve`.
      patience: seconds to wait for an answer.
      environment: variables added to this process's.
    """

    def __init__(self, command, *, patience=600.0, environment=None):
        self._patience = patience
        self._answers, self._words = queue.SimpleQueue(), []
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._readers = [
            threading.Thread(target=read, daemon=True)
            for read in (self._read_answers, self._read_words)
        ]
        for reader in self._readers:
            reader.start()

    def _read_answers(self):
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)  # it ended

    def _read_words(self):
        for line in self._process.stderr:
            self._words = [*self._words[-30:], line.rstrip()]

    def ask(self, **request) -> dict:
        """Sends one request and waits for its answer."""
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._answers.get(timeout=self._patience)
        except queue.Empty:
            raise ChildError(f"no answer within {self._patience:.0f} s") from None
        except OSError:
            line = None
        if line is None:
            self._process.wait(timeout=30)
            last = [word for word in self._words if word.strip()][-1:]
            status = self._process.returncode
            raise ChildError(f"ended with status {status}: {''.join(last)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(timeout=20)
        self._process.stdout.close()
        self._process.stderr.close()


def serve(answer) -> None:
    """The child's side: `answer(request)` -> dict for every line, until there is none.

    What libraries print goes to stderr.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())[:300]
            reply = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(reply), file=out, flush=True)


def time_steps(step, wait, count) -> dict:
    """Seconds a step, wall and of all cores, over `count` steps that end in `wait`.

    One step more comes first, untimed: the process that ran before has left its own
    data in the caches and its memory to be cleared, which costs a single step a third
    of its time.
    """
    wait(step())
    start = time.perf_counter(), time.process_time()
    for _ in range(count):
        outcome = step()
    value = wait(outcome)
    stop = time.perf_counter(), time.process_time()
    wall, cores = ((b - a) / count for a, b in zip(start, stop, strict=True))
    return {"wall": wall, "cores": cores, "loss": float(value)}


def take_turns(children, *, rounds, steps, budget) -> dict:
    """Lists of answers by name, one a round; stops early when the budget is spent.

    Args:
      children: name -> Child. The order turns by one each round, so that none is
        always the one that runs after another.
      rounds: how many, two at least where the budget allows.
      steps: training steps of a turn.
      budget: seconds.
    """
    names, answers = list(children), {name: [] for name in children}
    end = time.monotonic() + budget
    for number in range(rounds):
        start = time.monotonic()
        for name in names[number % len(names) :] + names[: number % len(names)]:
            answers[name].append(children[name].ask(steps=steps))
        now = time.monotonic()
        if now + (now - start) > end:
            break
    return answers


def compare(answers, ours, clock="wall") -> dict:
    """Median seconds by name, and the median over rounds of ours / theirs."""
    seconds = {name: [a[clock] for a in some] for name, some in answers.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[ours], some, strict=True))
        for name, some in seconds.items()
        if name != ours
    }
    medians = {name: statistics.median(some) for name, some in seconds.items()}
    return {"seconds": medians, "ratio": ratios}


def forget_peak() -> None:
    """Lets `resident_peak` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def resident_peak() -> int:
    """The most bytes of memory that this process held, since `forget_peak`."""
    status = pathlib.Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    info = pathlib.Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def commit() -> str:
    """The commit these files are at, `+` where they were changed; '' without git."""
    here = str(pathlib.Path(__file__).parent)

    def git(*words):
        command = ["git", "-C", here, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return ""
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def table(rows) -> str:
    """Rows of one dict each as a Markdown table; the first row's names come first."""
    if not rows:
        return "not run\n"

    def text(value):
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(text(r.get(n)) for n in names) + " |" for r in rows]
    return "\n".join(lines) + "\n"
