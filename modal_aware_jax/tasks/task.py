"""What the rest of the package asks of a task.

An *output* is what the network's head gives of one pair: relaxed bits, or logits. Pairs
are read, batched and sent through the network alike for every task, which says which
pairs' outputs it needs and what they are worth. Results are dicts of numbers, arrays
and dicts, kept in `cell.json` and `metrics.json`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple


class Mean(NamedTuple):
    """A column of a comparison: a number of each result, its mean over the seeds.

    Attributes:
      name: of the column in CSV and JSON.
      title: in tables that are read; '' leaves it out of them. The first column of a
        task is the score that methods are compared by.
      of: `of(result)` -> the number, or None where a result has none.
      about: a grid of this score, methods by code lengths, is shown under this line;
        '' for no grid. Such a score has its standard deviation beside it, as NAME_sd.
      head: over its columns of the LaTeX table.
    """

    name: str
    title: str
    of: Callable[[dict], float | None]
    about: str = ""
    head: str = ""


class Lead(NamedTuple):
    """The columns of a paired comparison: by how much the first method is ahead.

    Attributes:
      prefix: of the columns' names, `lead`, `lead_low`, `lead_high`, `lead_seeds`.
      title: in tables, before "FIRST minus it".
      items: `items(result)` -> a number for each query, image or post, whose mean is
        compared, the same items in all results; None where a result has none.
    """

    prefix: str
    title: str
    items: Callable[[dict], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How finished runs of a task stand beside each other.

    Attributes:
      columns: of the table, in their order.
      items: the arrays of a result with a number for each item, by the name under
        which `cells.npz` carries them: where in the result they lie. The first is in
        every result.
      read: a result as JSON gives it back -> as it was; KeyError, TypeError or
        ValueError where it is none.
      mean: results of several seeds -> one, of what curves and pages show.
      draw: `draw(directory, {name: results of several seeds}, bits)` -> (description,
        path) of each figure of the means.
      write: `write(directory, results, *, curves, title)` writes the page and what else
        stands beside the table.
      more: `more({name: results of several seeds})` -> Markdown below the table, of one
        code length; None for nothing.
      by_bits: whether runs differ in the length of their codes.
      published: `published(data, method, bits)` -> a number of the literature for
        `config.data`, or None.
      published_note: what a reader of such numbers has to know.
    """

    columns: tuple[Mean | Lead, ...]
    items: dict[str, tuple[str, ...]]
    read: Callable[[dict], dict]
    mean: Callable[[list[dict]], dict]
    draw: Callable[..., list]
    write: Callable[..., None]
    more: Callable[[dict], str] | None = None
    by_bits: bool = False
    published: Callable[..., float | None] | None = None
    published_note: str = ""

    @property
    def grids(self) -> list[Mean]:
        """The scores that have a grid of methods by code lengths."""
        return [c for c in self.columns if isinstance(c, Mean) and c.about]

    @property
    def headline(self) -> Mean:
        """The score that methods are compared by."""
        return next(column for column in self.columns if isinstance(column, Mean))


class Outcome(NamedTuple):
    """What an evaluation of the test pairs found.

    Attributes:
      result: the scores.
      arrays: what is kept of single pairs in the run's `Task.arrays_file`.
      examples: for the report's page, as `Task.write_report` takes them.
    """

    result: dict
    arrays: dict[str, Any]
    examples: list


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Attributes:
      name: as `config.task` names it.
      methods: its methods by name, as `experiment.methods.METHODS`.
      refused: methods of other tasks that it cannot use, and why.
      losses: its losses by name, as `experiment.losses.LOSSES`.
      check: `check(config, pairs)` refuses what cannot be learned from.
      num_outputs: `num_outputs(config, pairs)` -> the width of the network's head.
      network: `network(config, pairs, text, *, method, num_outputs)` -> the network;
        `text` is the encoder of texts. None: `experiment.methods.model`, with a joint
        vector and a head.
      solve: `solve(config, pairs, parts, method)` -> `solve(network, maps)`, which
        fills a network in closed form in place of training, from the cached maps; or
        None where the method is trained. None: no method is solved.
      loss: `loss(config, pairs, parts, network, joint)` -> the `loss(model, batch,
        key)` of a step. `joint(model, batch, text, *, train, window, rngs)` gives the
        vectors [B, D], or what the task's networks give, of a batch, which holds
        `image`, `text`, `labels` and `index`.
      output: `output(joint)` -> `output(model, batch)`, in evaluation mode.
      code_of_pair: whether outputs are the relaxed bits of one code of each pair, which
        is encoded, searched by, exported and perturbed.
      figures: the names of what `modal_aware_jax.figures` draws of finished cells; ()
        where all figures are in the report.
      pairs: `pairs(network, joint)` -> how pairs of a gallery are scored, with
        `encode(model, batch)` and `score(model, image, text, mask)`, in evaluation
        mode; None where the network does not. None: no network does.
      second: `second(experiment, outputs, scorer)` -> further outputs for `evaluate`,
        by scores of pairs; `scorer(positions)` gives a `modes.pair_scorer.PairScorer`.
      validation: `validation(experiment)` -> {name: positions} to be validated with.
      validate: `validate(experiment, outputs)` -> scores, from {name: outputs}.
      score: the one whose best checkpoint is kept.
      test: `test(experiment)` -> {name: positions} to be tested with.
      evaluate: `evaluate(experiment, outputs)` -> an `Outcome`; in the first process.
      embeddings: `embeddings(experiment, positions, outputs)` -> embeddings of images
        [N, F], of their sentences [M, F], and whose they are [M]; None where the
        outputs are relaxed bits or logits.
      arrays_file: of `Outcome.arrays`, in the workdir.
      title: `title(experiment)` of a run's report.
      write_report: `write_report(directory, {name: result}, *, examples, title)`.
      text: `text({name: result})` -> a table for the terminal.
      comparison: how its runs are compared.
      prepare: `prepare(experiment, maps)` before training and before an evaluation, in
        every process, with the maps that `modes.encoder.lower_maps` gives; None: there
        is nothing to prepare.
    """

    name: str
    methods: dict[str, Any]
    losses: dict[str, Any]
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[..., None]
    num_outputs: Callable[..., int]
    network: Callable[..., Any] | None = None
    solve: Callable[..., Callable | None] | None = None
    loss: Callable[..., Callable]
    output: Callable[..., Callable]
    code_of_pair: bool = False
    figures: tuple[str, ...] = ()
    pairs: Callable[..., Any] | None = None
    second: Callable[..., dict] | None = None
    validation: Callable[..., dict]
    validate: Callable[..., dict]
    score: str
    test: Callable[..., dict]
    evaluate: Callable[..., Outcome]
    embeddings: Callable[..., tuple] | None = None
    arrays_file: str
    title: Callable[..., str]
    write_report: Callable[..., Any]
    text: Callable[[dict], str]
    comparison: Comparison
    prepare: Callable[..., None] | None = None
