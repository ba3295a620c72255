"""Prepares a source once into ArrayRecord.

Every source (Flickr 25k, a folder, ...) gives a `Scan`: its pairs with a reader for
each image. One tensorflow-datasets builder writes them; TensorFlow is not needed.
The images are stored as encoded bytes: JPEG and PNG files that are upright RGB and
small enough keep theirs, all others become JPEG with the shorter side reduced to
`stored_size` (see `stored_image.py`).

A preparation lies in a directory named after a fingerprint of the source's files
(names, sizes, times) and options, so a change of any of them prepares anew. It is
written under another name and renamed when complete: what an interruption leaves is
never taken for a preparation. Two processes that prepare the same at the same time
both do the work, and the first to end wins.
"""

import concurrent.futures
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import rich.console
import rich.progress
import tensorflow_datasets as tfds

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.prepared import open_prepared, save_columns
from modal_aware_jax.data.problems import (
    DataProblems,
    Problem,
    describe,
    load_problems,
    save_problems,
)
from modal_aware_jax.data.stored_image import ImageProblem, grey_image, to_stored

FORMAT = 1  # part of the fingerprint: a change of the code below prepares anew


class Pair(NamedTuple):
    """A pair of a source, before its image is read.

    Attributes:
      id: unique in the source.
      read_image: reads the encoded image; raises OSError and the like.
      where: the image file, for messages.
      caption: the readable text.
      text: positions of the pair's words in the vocabulary.
      labels: positions of its labels in the label names.
      part: of a given split, as `Collection.parts` names them; '' for none.
    """

    id: str
    read_image: Callable[[], bytes]
    where: str
    caption: str
    text: np.ndarray
    labels: Sequence[int]
    part: str = ""


class Scan(NamedTuple):
    """What a source found.

    Attributes:
      pairs: in the order of the collection.
      vocabulary, label_names: the words and labels that the pairs point into.
      problems: what is wrong with the source's files.
      counts: what was left out or changed by rule, in words, with numbers.
    """

    pairs: Sequence[Pair]
    vocabulary: Sequence[str]
    label_names: Sequence[str]
    problems: Sequence[Problem]
    counts: dict[str, int]


def source_directory(name: str, directory: str | os.PathLike) -> pathlib.Path:
    """A source's directory, with ~ for the home; a ValueError where there is none."""
    directory = pathlib.Path(directory).expanduser()
    if not directory.is_dir():
        raise ValueError(f"{name}.load: {directory} is not a directory.")
    return directory


def load_or_prepare(
    name: str,
    scan: Callable[[], Scan],
    *,
    inputs: Iterable[pathlib.Path],
    options: dict,
    stored_size: int | None = 256,
    keep_without_image: bool = False,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Opens the preparation of these inputs and options, made first if need be.

    Args:
      name: of the source, a Python identifier.
      scan: finds the pairs; called only where nothing is prepared yet.
      inputs: the files and folders that the source reads.
      options: the source's options, as JSON values.
      stored_size: images are reduced to this shorter side; None and 0 keep all sizes.
      keep_without_image: keep pairs whose image is not there, a grey one in its place
        and False in the collection's `has_image`; those without any text are left out.
      on_problem: 'stop' raises DataProblems with everything that is wrong, after all
        has been looked at; 'skip' leaves out what is wrong, and says so.
      prepared_dir: where preparations are kept; None: `modal_aware_jax` in the
        user's cache directory ($XDG_CACHE_HOME or ~/.cache).
      progress: whether to show a progress bar and the counts (on stderr).
    """
    if on_problem not in ("stop", "skip"):
        raise ValueError(
            f"{name}: on_problem must be 'stop' or 'skip', got {on_problem!r}."
        )
    stored_size = stored_size or None
    options = {**options, "stored_size": stored_size}
    if keep_without_image:
        options["keep_without_image"] = True
    root = pathlib.Path(prepared_dir or default_prepared_dir()).expanduser()
    target = root.absolute() / f"{name}-{fingerprint(name, inputs, options)}"
    console = rich.console.Console(stderr=True, quiet=not progress)
    if not target.exists():
        _prepare(name, scan, target, options, stored_size, console)
    problems = load_problems(target / "problems.jsonl")
    if problems and on_problem == "stop":
        raise DataProblems(name, problems, listing=target / "problems.jsonl")
    if problems:
        console.print(f"{name}: left out: {describe(problems)}", markup=False)
        console.print(f"All of them: {target / 'problems.jsonl'}", markup=False)
    return open_prepared(target)


def default_prepared_dir() -> pathlib.Path:
    """`modal_aware_jax` in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "modal_aware_jax"


def fingerprint(name: str, inputs: Iterable[pathlib.Path], options: dict) -> str:
    """A hash of options and of the names, sizes and times of all input files."""
    digest = hashlib.sha256(
        json.dumps([FORMAT, name, options], sort_keys=True).encode()
    )
    # Unlike Path.resolve, realpath bears links that lead in a circle.
    for path in sorted(pathlib.Path(os.path.realpath(path)) for path in inputs):
        for line in _file_facts(path):
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _file_facts(path, above=()):
    """A line of name, size and time for a file, or for each file in a folder.

    A link to one of the folders `above` has none: it leads in a circle.
    """
    if not os.path.isdir(path):  # bears names that are too long, as Path does not
        facts = path.stat() if os.path.exists(path) else None
        size, changed = (facts.st_size, facts.st_mtime_ns) if facts else (-1, -1)
        yield f"{path}\t{size}\t{changed}\n"
        return
    above = (*above, os.path.realpath(path))
    if above[-1] in above[:-1]:
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _file_facts(pathlib.Path(entry.path), above)
            else:
                facts = os.stat(entry.path) if os.path.exists(entry.path) else None
                size, changed = (facts.st_size, facts.st_mtime_ns) if facts else "--"
                yield f"{entry.path}\t{size}\t{changed}\n"


class Records(tfds.core.GeneratorBasedBuilder):
    """Writes examples in their given order; the name is set for each instance."""

    VERSION = tfds.core.Version("1.0.0")
    # Looking for download checksums beside this file needs `importlib_resources`,
    # which tensorflow-datasets does not install. There is nothing to download.
    code_path = None

    def __init__(self, *, source_name: str, examples: Iterable[dict], data_dir: str):
        self.name = source_name
        self._examples = examples
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self):
        indices = tfds.features.Sequence(tfds.features.Scalar(np.int32))
        return tfds.core.DatasetInfo(
            builder=self,
            description="Image-text pairs with labels, prepared by modal_aware_jax.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "caption": tfds.features.Text(),
                    "text": indices,
                    "labels": indices,
                }
            ),
            disable_shuffling=True,
        )

    def _log_download_bytes(self):
        """Says nothing: no bytes are downloaded."""

    def _log_download_done(self):
        """Says nothing: `load_or_prepare` does."""

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from enumerate(self._examples)


def _prepare(name, scan, target, options, stored_size, console):
    """Writes a preparation beside `target` and renames it."""
    start = time.monotonic()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{name}: {target.parent} cannot be made ({error}). Say where prepared "
            "data may be kept with --config.data.options.prepared_dir=FOLDER."
        ) from error
    _remove_abandoned(target)
    console.print(f"{name}: preparing {target}", markup=False)
    found = scan()
    problems, counts = list(found.problems), Counter(found.counts)
    partial = pathlib.Path(
        tempfile.mkdtemp(prefix=_partial_prefix(target), dir=target.parent)
    )
    try:
        kept = []
        kept_anyway = options.get("keep_without_image", False)
        stored = _stored(found.pairs, stored_size, kept_anyway, problems, counts)
        with _bar(console) as bar:
            total = len(found.pairs)
            tracked = iter(bar.track(stored, total=total, description=name))
            first = next(tracked, None)
            if first is None and problems:
                raise DataProblems(name, problems, skippable=False)
            if first is None:
                raise ValueError(f"{name}: no pair is left. {dict(counts)}")
            examples = _examples(itertools.chain([first], tracked), kept)
            records = _write_records(name, examples, partial)
        counts["pairs kept"] = len(kept)
        for what, place in (("an empty bag of words", 1), ("no label", 2)):
            if without := sum(not len(row[place]) for row in kept):
                counts[f"pairs kept with {what}"] = without
        if without := sum(not row[4] for row in kept):
            counts["pairs kept without an image"] = without
        save_columns(partial / "columns.npz", kept)
        save_problems(partial / "problems.jsonl", problems)
        facts = dict(
            name=name,
            records=str(records.relative_to(partial)),
            num_pairs=len(kept),
            counts=dict(counts),
            problem_counts=dict(Counter(problem.kind for problem in problems)),
            options=options,
            label_names=list(found.label_names),
            vocabulary=list(found.vocabulary),
        )
        path = partial / "preparation.json"
        path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes it private
        _rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    seconds = time.monotonic() - start
    for what, number in sorted(counts.items()):
        console.print(f"  {number:8,} {what}", markup=False)
    console.print(
        f"{name}: prepared in {seconds:.0f} s ({len(kept) / seconds:,.0f} pairs/s)",
        markup=False,
    )


def _stored(
    pairs, stored_size, keep_without_image, problems, counts
) -> Iterator[tuple[Pair, bytes | None]]:
    """Reads and checks images on threads (PIL releases the lock), keeps the order.

    None in place of an image that is not there, where such pairs are kept.
    """

    def check(pair):
        try:
            return to_stored(pair.read_image(), stored_size)
        except ImageProblem as error:
            return Problem(error.kind, pair.where, str(error))
        except FileNotFoundError:
            if keep_without_image:
                return None, ()
            return Problem("missing image", pair.where, "there is no such file")
        except Exception as error:  # zipfile raises nearly anything
            return Problem("unreadable image", pair.where, f"cannot be read: {error}")

    threads = min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting, rest = deque(), iter(pairs)
        while True:
            for pair in itertools.islice(rest, 8 * threads - len(waiting)):
                waiting.append((pair, pool.submit(check, pair)))
            if not waiting:
                return
            pair, future = waiting.popleft()
            result = future.result()
            if isinstance(result, Problem):
                problems.append(result)
                counts[f"pairs left out: {result.kind}"] += 1
                continue
            encoded, done = result
            if encoded is None and not (len(pair.text) or pair.caption.strip()):
                counts["pairs left out: neither image nor text"] += 1
                continue
            counts.update(f"images {what}" for what in done)
            yield pair, encoded


def _examples(stored, kept):
    """Examples for the builder; remembers in `kept` what the columns need."""
    for pair, encoded in stored:
        kept.append((pair.id, pair.text, pair.labels, pair.part, encoded is not None))
        yield {
            "id": pair.id,
            "image": io.BytesIO(encoded or grey_image()),
            "caption": pair.caption,
            "text": pair.text,
            "labels": np.asarray(pair.labels, np.int32),
        }


def _write_records(name, examples, directory):
    """Runs the builder without its own bars and messages -> the records' folder."""
    builder = Records(source_name=name, examples=examples, data_dir=str(directory))
    tfds.disable_progress_bar()  # there is one of our own
    builder.download_and_prepare(file_format="array_record")
    shutil.rmtree(directory / "downloads", ignore_errors=True)  # nothing in it
    return pathlib.Path(builder.data_dir)


def _bar(console):
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
    )


def _partial_prefix(target):
    return f"{target.name}.partial-{socket.gethostname()}-{os.getpid()}-"


def _rename(partial, target):
    try:
        os.rename(partial, target)
    except OSError:
        if not target.exists():
            raise  # else another process was first, with the same content


def _remove_abandoned(target):
    """Removes what processes of this machine left that no longer run."""
    prefix = f"{target.name}.partial-{socket.gethostname()}-"
    for path in target.parent.glob(f"{target.name}.partial-*"):
        pid = path.name.removeprefix(prefix).split("-")[0]
        if path.name.startswith(prefix) and pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
