"""Scores of single pairs of a gallery: the second look after a search."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.build import Experiment
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.captions.collection import sentences_there
from modal_aware_jax.training.progress import ProgressBar

PAIRS = 256  # scored at once


class PairScorer:
    """Some images and all their sentences, encoded, and the scores of any pair.

    What the network makes of one side alone stays on the device, float16: 32 kB an
    image and 12 kB a sentence where that is 64 and 24 tokens of 256 numbers.

    Args:
      experiment: whose network scores pairs.
      variables: one or several pure dicts that together fill the model.
      maps: as `encoder.lower_maps` gives them, or None.
      positions: of the images in the collection; image i of the gallery is the i-th.
    """

    def __init__(self, experiment: Experiment, variables, maps, positions):
        graphdef, _ = nnx.split(experiment.model)
        calls, pairs = experiment.pairs, experiment.collection

        @jax.jit
        def encode(variables, batch):
            model = nnx.merge(graphdef, *variables)
            image, text, mask = calls.encode(model, batch)
            return image.astype(jnp.float16), text.astype(jnp.float16), mask

        @jax.jit
        def score(variables, images, texts, mask, image, text):
            model = nnx.merge(graphdef, *variables)
            pairs = images[image], texts[text]
            pairs = (side.astype(jnp.float32) for side in pairs)
            return calls.score(model, *pairs, mask[text])

        self._variables = jax.device_get(variables)
        self._score = score
        self._graphdef, self._edges = graphdef, calls.edges
        model = nnx.merge(graphdef, *variables)
        self.scale = float(model.temperature.scale())
        size = experiment.batch_size
        if maps is None:
            batches = pipeline.eval_batches(
                pairs, positions, batch_size=size, image_size=experiment.image_size
            )
        else:
            batches = pipeline.cached_eval_batches(
                maps, pairs, positions, batch_size=size
            )
        images, texts, masks = [], [], []
        for batch in batches:
            kept, arrays = batch["mask"], {x: batch[x] for x in ("image", "text")}
            found = jax.device_get(encode(self._variables, arrays))
            image, text, mask = (part[kept] for part in found)
            images.append(image)
            captions = [pairs.captions[int(i)] for i in batch["index"][kept]]
            there = sentences_there(captions, mask.shape[1])
            texts.append(text[there])
            masks.append(mask[there])
        gallery = (np.concatenate(part) for part in (images, texts, masks))
        self._gallery = tuple(jnp.asarray(part) for part in gallery)

    def __call__(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Logits float32 [P] of rows of the images and of the sentences, [P] each."""
        scores = []
        with ProgressBar(len(image), label="score pairs") as bar:
            for start in range(0, len(image), PAIRS):
                rows = slice(start, start + PAIRS)
                count = len(image[rows])
                padded = (
                    np.pad(side[rows], (0, PAIRS - count)).astype(np.int32)
                    for side in (image, text)
                )
                scores.append(self._score(self._variables, *self._gallery, *padded))
                scores[-1] = np.asarray(scores[-1])[:count]
                bar.advance(count)
        return np.concatenate(scores)

    def edges(self, image: int, text: int) -> list[np.ndarray]:
        """The graph's edges of one pair, of each layer [M + n, M + n] without padding.

        Args:
          image, text: rows of the images and of the sentences.
        """
        images, texts, masks = (
            side[row : row + 1]
            for side, row in zip(self._gallery, (image, text, text), strict=True)
        )
        model = nnx.merge(self._graphdef, *self._variables)
        sides = (side.astype(jnp.float32) for side in (images, texts))
        layers = self._edges(model, *sides, masks)
        there = np.append(np.ones(images.shape[1], bool), np.asarray(masks[0]) != 0)
        return [np.asarray(layer[0])[there][:, there] for layer in layers]
