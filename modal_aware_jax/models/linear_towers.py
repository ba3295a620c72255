"""Two linear towers, solved and not trained: canonical correlation as a network."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.models.cca import fit_cca
from modal_aware_jax.models.temperature import Temperature


class Solved(nnx.Variable):
    """Given by a closed form: saved in checkpoints, never trained."""


class LinearTowers(nnx.Module):
    """Embeddings (x − mean) W of both sides; `solve` gives W by `models.cca.fit_cca`.

    Has the calls of a `TwoTower`, so that it is evaluated, searched and exported alike.

    Args:
      image_features, text_features: Di and Dt of the vectors that come in.
      features: F. There are no more directions than features of the narrower side;
        coordinates beyond them are zeros, which no cosine sees.
      rngs: not used; before `solve` all embeddings are zeros.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(50, 3))
      >>> towers = LinearTowers(3, 3, 2, rngs=nnx.Rngs(0))
      >>> towers.solve(x, x[:, ::-1], regularization=0.1, power=4.0)
      >>> image, text = towers.embed_image(x), towers.embed_text(x[:, ::-1])
      >>> bool(jnp.allclose(image, text, atol=1e-4))
      True
    """

    def __init__(
        self, image_features: int, text_features: int, features: int, *, rngs=None
    ):
        del rngs
        for name, width in (("image", image_features), ("text", text_features)):
            setattr(self, f"{name}_mean", Solved(jnp.zeros(width)))
            setattr(self, f"{name}_map", Solved(jnp.zeros((width, features))))
        self.temperature = Temperature()

    @property
    def text_features(self) -> int:
        """Dt."""
        return self.text_map.shape[0]

    def solve(self, image, text, *, regularization: float, power: float) -> None:
        """Fits the maps to pairs of vectors [N, Di] and [N, Dt].

        Args:
          regularization: of `fit_cca`.
          power: of the correlations that weight the coordinates, in both maps.
        """
        narrow = min(self.image_map.shape[0], self.text_map.shape[0])
        directions = min(narrow, self.image_map.shape[1])
        found = fit_cca(image, text, directions, regularization=regularization)
        weights = found.correlations**power
        zeros = [(0, 0), (0, self.image_map.shape[1] - directions)]
        for name in ("image", "text"):
            mean, maps = (getattr(found, f"{name}_{part}") for part in ("mean", "map"))
            getattr(self, f"{name}_mean")[...] = jnp.asarray(mean, jnp.float32)
            scaled = np.pad(maps * weights, zeros).astype(np.float32)
            getattr(self, f"{name}_map")[...] = jnp.asarray(scaled)

    def embed_image(self, image, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps images [B, Di] to embeddings [B, F]."""
        del train, rngs
        return (image - self.image_mean[...][None]) @ self.image_map[...]

    def embed_text(self, text, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps texts [B, Dt] to embeddings [B, F]."""
        del train, rngs
        return (text - self.text_mean[...][None]) @ self.text_map[...]
