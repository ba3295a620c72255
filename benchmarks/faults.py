"""A fault drill: what can go wrong with a run, and that nothing is lost by it.

    JAX_PLATFORMS=cpu python benchmarks/faults.py [--kills=100] [--only=NAME,NAME]

A small experiment (photographs with words in a folder, read by Grain; the image network
on a narrow ResNet-18; a checkpoint every 4 steps) is trained once undisturbed. Then
each fault hits a run of the same config, which is started again when the cause is
mended: its final parameters and optimiser state must be those of the undisturbed run,
bit for bit, and what it printed at the fault one clear message without a traceback.

Writes `benchmarks/results/faults.md` where every fault was survived; exit code 1 else.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
STEPS_PER_EPOCH = 6


@dataclasses.dataclass
class Ended:
    """How a child ended: exit code, output, and the digest of its final state."""

    code: int
    output: str
    digest: str | None

    @property
    def message(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Drill:
    """Starts runs of one experiment in folders of their own."""

    def __init__(self, place: pathlib.Path, epochs: int):
        self.place, self.epochs = place, epochs
        self.data, self.prepared = place / "data", place / "prepared"
        write_data(self.data)

    def command(self, workdir, **faults):
        flags = [f"--{name}={value}" for name, value in faults.items()]
        return [
            *(sys.executable, __file__, f"--child={workdir}", f"--data={self.data}"),
            *(f"--epochs={self.epochs}", *flags),
        ]

    def environment(self):
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.prepared),
            "JAX_COMPILATION_CACHE_DIR": str(self.place / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, workdir, *, limit=None, timeout=3600, **faults) -> Ended:
        """Trains until the end or the fault."""

        def before():
            if limit is not None:  # bytes a file may have; the write fails, no signal
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        done = subprocess.run(
            self.command(workdir, **faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
            preexec_fn=before,
            timeout=timeout,
        )
        digest = None
        for line in done.stdout.splitlines():
            if line.startswith("digest "):
                digest = line.split()[1]
        return Ended(done.returncode, done.stdout, digest)


def write_data(folder: pathlib.Path) -> None:
    """180 photographs of noise with words and labels, and their table."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    words, labels = ["sea", "sky", "dog", "car", "tree", "red"], ["a", "b", "c"]
    folder.mkdir(parents=True)
    rows = ["image,text,labels"]
    for i in range(180):
        pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
        text = " ".join(rng.choice(words, 3, replace=False))
        rows.append(f"{i}.jpg,{text},{rng.choice(labels)}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")


# The child: one run, with at most one fault.


def child(args) -> int:
    import runpy

    import jax
    import numpy as np

    from modal_aware_jax import build, modes
    from modal_aware_jax.training import run as training_run
    from modal_aware_jax.training.errors import RunError

    config = runpy.run_path(str(ROOT / "configs" / "folder.py"))["get_config"](
        "method=image,bits=8"
    )
    config.data.dir, config.data.options.min_word_count = args.data, 1
    config.data.image_size = 32
    config.data.num_queries, config.data.num_train = 20, 10 * STEPS_PER_EPOCH
    config.data.num_validation = 10
    config.backbone.options.width = 4
    config.training.batch_size, config.training.num_epochs = 10, args.epochs
    config.training.checkpoint_steps, config.training.workers = 4, args.workers

    final, begun = [], []
    advance = training_run.Run.advance

    def with_fault(self, state, metrics, batch):
        advance(self, state, metrics, batch)
        time.sleep(args.wait)
        if self.step == begun[0] + args.kill_after:
            threading.Thread(target=_die, args=(args.delay,)).start()
        if self.step == args.kill_worker_at:
            _kill_a_reading_process()
        if self.step == args.vanish_at:
            for folder in (args.data, os.environ["XDG_CACHE_HOME"]):
                os.rename(folder, f"{folder}-away")
        if self.step == args.eio_at:
            _break_reading()
        final[:] = [self]

    training_run.Run.advance = with_fault
    enter = training_run.Run.__enter__

    def told(self):
        run = enter(self)
        print(f"started at {self.step}", flush=True)
        begun[:], final[:] = [self.step], [self]
        return run

    training_run.Run.__enter__ = told
    try:
        modes.train(build.experiment(config), pathlib.Path(args.child))
    except (ValueError, RunError) as error:
        print(f"Error: {error}")
        sys.stdout.flush()
        os._exit(getattr(error, "exit_code", 2))
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(final[0].state):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    print(f"digest {digest.hexdigest()[:16]} step {final[0].step}")
    return 0


def _die(delay):
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_a_reading_process():
    children = []
    for thread in pathlib.Path("/proc/self/task").iterdir():
        children += (thread / "children").read_text().split()
    for child in children:
        if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            return
    print(f"there is no reading process among {children}", flush=True)


def _break_reading():
    from modal_aware_jax.data import prepared

    def fail(self, position):
        raise OSError(5, "Input/output error", "photographs on a network disk")

    prepared.RecordColumn.__getitem__ = fail


# The faults. Each returns what it saw; a failed `expect` ends it.


def expect(condition, text, ended=None) -> None:
    if not condition:
        tail = "" if ended is None else f"\n{ended.output[-2000:]}"
        raise AssertionError(f"{text}{tail}")


def stopped(ended: Ended, code: int, *texts: str) -> str:
    """Checks exit code and message; returns the message."""
    expect(ended.code == code, f"exit code {ended.code} instead of {code}", ended)
    for text in texts:
        expect(text in ended.output, f"the output lacks {text!r}", ended)
    expect("Traceback" not in ended.output, "a traceback", ended)
    return next(
        line.removeprefix("Error: ")
        for line in ended.output.splitlines()
        if texts[0] in line
    )


def finishes(drill, workdir, expected, **options) -> str:
    ended = drill.run(workdir, **options)
    expect(ended.code == 0, f"exit code {ended.code} after the fault", ended)
    expect(ended.digest == expected, "other final parameters", ended)
    return ended.output


def killed(drill, workdir, expected, kills):
    """SIGKILL, each time after a random number of steps and of milliseconds."""
    rng, count = random.Random(0), 0
    while count < kills:
        after = rng.randint(1, 9)
        delay = rng.random() * 0.1  # about five steps
        ended = drill.run(workdir, kill_after=after, delay=delay, wait=0.02)
        if ended.code == 0:
            break
        expect(ended.code == -signal.SIGKILL, f"exit code {ended.code}", ended)
        expect("Traceback" not in ended.output, "a traceback", ended)
        expect("started at" in ended.output, "it never started", ended)
        count += 1
    expect(count == kills, f"the run was over after {count} kills")
    finishes(drill, workdir, expected)
    return f"killed {count} times"


def full_disk(drill, workdir, expected, kills):
    """A file system of 400 kB; without the right to mount, a limit on files' sizes."""
    workdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(workdir)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        ended = drill.run(workdir, limit=None if mounted else 60_000)
        expect(ended.code in (5, 6), f"exit code {ended.code}", ended)
        message = stopped(ended, ended.code, "Error: ")
        expect("the same command" in message, "it does not say how to go on", ended)
        if mounted:
            mount[4] = "size=1g,remount"
            subprocess.run(mount, check=True, capture_output=True)
        finishes(drill, workdir, expected)
    finally:
        if mounted:
            subprocess.run(["umount", str(workdir)], check=True)
    return message


def unwritable(drill, workdir, expected, kills):
    """The working directory lies below a file."""
    workdir.write_text("")
    message = stopped(drill.run(workdir / "run"), 5, "cannot be written")
    workdir.unlink()
    finishes(drill, workdir / "run", expected)
    return message


def damaged(harm):
    def fault(drill, workdir, expected, kills):
        drill.run(workdir, kill_after=15)
        steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
        finished = [p for p in steps if (p / "checksums.json").exists()]
        newest = max(finished, key=lambda path: int(path.name))
        files = [file for file in newest.rglob("*") if file.is_file()]
        harm(max(files, key=lambda file: file.stat().st_size))
        output = finishes(drill, workdir, expected)
        (message,) = (
            line
            for line in output.splitlines()
            if line.startswith(f"The checkpoint of step {newest.name} is damaged")
        )
        return message

    fault.__doc__ = harm.__doc__
    return fault


def cut(file):
    """The largest file of the newest checkpoint is cut to half."""
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    """One bit of the largest file of the newest checkpoint is flipped."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def dead_worker(drill, workdir, expected, kills):
    """One of Grain's reading processes is killed."""
    ended = drill.run(workdir, workers=1, kill_worker_at=8, wait=0.2)
    message = stopped(ended, 7, "Reading the batch of step", "the same command")
    finishes(drill, workdir, expected, workers=1)
    return message


def read_error(drill, workdir, expected, kills):
    """Every read fails in the middle of an epoch, as of a disk that went away."""
    ended = drill.run(workdir, eio_at=8)
    message = stopped(ended, 7, "Reading the batch of step", "Input/output error")
    finishes(drill, workdir, expected)
    return message


def vanished(drill, workdir, expected, kills):
    """The data folder and its preparation are moved away in the middle of an epoch."""
    folders = drill.data, drill.prepared
    try:
        ended = drill.run(workdir, vanish_at=8)
        if ended.code == 0:  # what is open can still be read
            expect(ended.digest == expected, "other final parameters", ended)
        else:  # while it trains, or when the evaluation opens the captions
            expect(ended.code in (2, 7), f"exit code {ended.code}", ended)
            stopped(ended, ended.code, "the same command")
        shutil.rmtree(workdir / "checkpoints")
        message = stopped(drill.run(workdir), 2, "Error: ", str(drill.data))
    finally:
        for folder in folders:
            if folder.with_name(f"{folder.name}-away").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_name(f"{folder.name}-away").rename(folder)
    finishes(drill, workdir, expected)
    return message


def two_runs(drill, workdir, expected, kills):
    """A second run is started in the directory of the first."""
    first = subprocess.Popen(
        drill.command(workdir, wait=20.0),  # it is still there when the second starts
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=drill.environment(),
    )
    for line in first.stdout:
        if line.startswith("started at"):
            break
    message = stopped(drill.run(workdir), 4, "is in use by process")
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    expect(first.returncode == 128 + signal.SIGTERM, "the first run was disturbed")
    finishes(drill, workdir, expected)
    return message


FAULTS = {
    "SIGKILL": killed,
    "full disk": full_disk,
    "unwritable directory": unwritable,
    "truncated checkpoint": damaged(cut),
    "flipped bit": damaged(flip),
    "dead reading process": dead_worker,
    "failing reads": read_error,
    "vanished data": vanished,
    "two runs": two_runs,
}


def drill_all(args) -> int:
    chosen = args.only.split(",") if args.only else list(FAULTS)
    rows, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        place = pathlib.Path(place)
        long, short = max(args.kills, 1) * 8 // STEPS_PER_EPOCH + 2, 4
        expected = {}
        drill = Drill(place / "drill", short)
        for number, name in enumerate(chosen):
            fault = FAULTS[name]
            drill.epochs = long if fault is killed else short
            if drill.epochs not in expected:
                ended = drill.run(place / f"undisturbed-{drill.epochs}")
                expect(ended.digest, "the undisturbed run failed", ended)
                expected[drill.epochs] = ended.digest
            begun = time.monotonic()
            try:
                message = fault(
                    drill, place / f"run-{number}", expected[drill.epochs], args.kills
                )
                survived = "yes"
            except (AssertionError, subprocess.TimeoutExpired, StopIteration) as error:
                message, survived, failed = str(error), "NO", failed + 1
            message = message.replace(str(place), "…")
            print(f"{name}: {survived} ({time.monotonic() - begun:.0f} s) {message}")
            sys.stdout.flush()
            rows.append((name, fault.__doc__.split("\n")[0], survived, message))
    if not failed and not args.only:
        write_results(rows, args.kills)
    return int(failed > 0)


def write_results(rows, kills) -> None:
    import jax

    def git(*words):
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    facts = {
        "commit": git("rev-parse", "--short", "HEAD"),
        "kills": kills,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{platform.machine()} CPU",
    }
    lines = [
        "# Fault drill",
        "",
        f"`JAX_PLATFORMS=cpu python benchmarks/faults.py --kills={kills}`; commit "
        f"{facts['commit']}, jax {facts['jax']}, Python {facts['python']}, "
        f"{facts['device']}. After every fault the run went on to the parameters of an "
        "undisturbed one, bit for bit.",
        "",
        "| fault | what happens | survived | what the user reads |",
        "|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in r)} |" for r in rows]
    folder = ROOT / "benchmarks" / "results"
    (folder / "faults.md").write_text("\n".join(lines) + "\n")
    names = ("fault", "what", "survived", "message")
    table = [dict(zip(names, row, strict=True)) for row in rows]
    text = json.dumps({**facts, "faults": table}, indent=1)
    (folder / "faults.json").write_text(text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", default="", help=", ".join(FAULTS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=4, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--wait", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--delay", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--kill_after", type=int, default=-1, help=argparse.SUPPRESS)
    for name in ("kill_worker_at", "vanish_at", "eio_at"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.exit(child(given) if given.child else drill_all(given))
