"""Kernel network: each modality is reweighted by its similarity to the other."""

import jax
import jax.numpy as jnp
from flax import nnx


def check_pair(caller, image, text, image_features, text_features):
    """Raises a ValueError unless image is [B, H, W, C] and text is [B, T]."""
    expected = (
        f"{caller} expects image maps [B, H, W, {image_features}] and text "
        f"[B, {text_features}], got {image.shape} and {text.shape}."
    )
    if image.ndim == 4 and image.shape[1] == image_features != image.shape[3]:
        raise ValueError(f"{expected} Channels come last: transpose [B, C, H, W].")
    if image.ndim != 4 or image.shape[3] != image_features:
        raise ValueError(expected)
    if not image.shape[1] * image.shape[2]:  # a mean over nothing is NaN
        raise ValueError(f"{expected} The maps have no positions: give larger images.")
    if text.ndim != 2 or text.shape[1] != text_features:
        raise ValueError(expected)
    if image.shape[0] != text.shape[0]:
        raise ValueError(f"{expected} Both need the same batch size B.")


# A twentieth of what layers start from: beside biases of one a similarity starts even.
SMALL = nnx.initializers.variance_scaling(0.05**2, "fan_in", "truncated_normal")


def dot_product(scores, rank):
    """The paper's similarity: the inner product of R numbers as it is."""
    del rank
    return scores


def scaled_dot_product(scores, rank):
    """The inner product divided by sqrt(R), as in attention."""
    return scores / rank**0.5


def bounded_residual(scores, rank):
    """1 + tanh of the scaled inner product: between 0 and 2, and 1 for no relation.

    The product of plain inner products over two blocks can shrink or blow up the
    features by orders of magnitude; this form reweights them around one.
    """
    return 1.0 + jnp.tanh(scores / rank**0.5)


# The inner product at which a similarity gives a weight; another function of scores
# starts from products of about 0.
SCORE_OF = {
    dot_product: lambda weight, rank: weight,
    scaled_dot_product: lambda weight, rank: weight * rank**0.5,
}


def position_scores(image, key, query):
    """Inner products <V f_i + v, q> of every position with the text.

    Summed as f_i . (V^T q) + v . q: the C x R map meets B queries and not the B H W
    positions, which at 7 x 7 positions is 49 times less work.

    Args:
      image: maps, [B, H, W, C].
      key: an affine map with `kernel` V^T [C, R] and `bias` v [R].
      query: projected text, [B, R].

    Returns:
      [B, H, W].
    """
    kernel, bias = (
        key.kernel[...].astype(query.dtype),
        key.bias[...].astype(query.dtype),
    )
    towards = query @ kernel.T  # [B, C]
    constant = query @ bias  # [B]
    return jnp.einsum("bhwc,bc->bhw", image, towards) + constant[:, None, None]


class KernelNetwork(nnx.Module):
    """Reweights image positions and text by learned cross-modal similarity.

    With V^I, T^I, V^T, T^T affine maps, s_i = <V^I f^I_i, T^I f^T> and the mean over
    positions written mean(f^I):

        image_i <- s_i f^I_i        text <- <V^T mean(f^I), T^T f^T> f^T

    Source: Zeng et al., "Modal-aware Features for Multimodal Hashing"
    (arXiv:1911.08479), the kernel network. The defaults are its literal form.

    It starts at the identity: kernels are small and biases such that every similarity
    is about 1. The papers name no initialisation; from that of plain layers the
    products are a sample's random signs and sizes, and two such networks in a row do
    not learn (numbers in the README).

    Attributes:
      rank: inner width R of the text's similarity. The literal form has R = T, which
        costs T x T weights; a bilinear form of C and T features has rank at most
        C (C + 1 with the biases), so R = C + 1 covers exactly the same functions
        with about C / T of the weights (see `low_rank`).
      similarity: maps inner products of R numbers to weights: `dot_product` (the
        paper's), `scaled_dot_product`, `bounded_residual`, or any function of (scores,
        R) that keeps the scores' shape.
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        rank: int | None = None,
        similarity=dot_product,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.image_features = image_features
        self.text_features = text_features
        self.rank = text_features if rank is None else rank
        self.similarity = similarity

        def dense(inputs, outputs):
            return nnx.Linear(
                inputs, outputs, kernel_init=SMALL, dtype=dtype, rngs=rngs
            )

        # A 1x1 convolution is the same affine map at every position: a Linear.
        self.image_key = dense(image_features, image_features)  # V^I
        self.image_query = dense(text_features, image_features)  # T^I
        self.text_key = dense(image_features, self.rank)  # V^T
        self.text_query = dense(text_features, self.rank)  # T^T
        self.start_at(1.0, 1.0)

    def start_at(self, image: float, text: float) -> None:
        """Sets the biases so that similarities start at these weights, in place.

        Where `similarity` is another function than `dot_product` and
        `scaled_dot_product`, the inner products start at about 0.

        Args:
          image: of every position.
          text: of the text.
        """
        score = SCORE_OF.get(self.similarity, lambda weight, rank: 0.0)
        for weight, rank, key, query in (
            (image, self.image_features, self.image_key, self.image_query),
            (text, self.rank, self.text_key, self.text_query),
        ):
            bias = (score(weight, rank) / rank) ** 0.5
            for layer in (key, query):
                layer.bias[...] = jnp.full_like(layer.bias[...], bias)

    def weights(self, image: jax.Array, text: jax.Array):
        """The weights of positions and text, [B, H, W] and [B].

        Args:
          image, text: [B, H, W, C] and [B, T].
        """
        check_pair(
            "KernelNetwork", image, text, self.image_features, self.text_features
        )
        query = self.image_query(text)  # [B, C]
        scores = position_scores(image, self.image_key, query)  # [B, H, W]
        positions = self.similarity(scores, self.image_features)
        mean = image.mean(axis=(1, 2))  # [B, C]
        scores = jnp.sum(self.text_key(mean) * self.text_query(text), axis=-1)  # [B]
        return positions, self.similarity(scores, self.rank)

    def __call__(self, image: jax.Array, text: jax.Array):
        """Maps image [B, H, W, C] and text [B, T] to arrays of the same shapes."""
        positions, weight = self.weights(image, text)
        return positions[..., None] * image, weight[:, None] * text


def low_rank(literal: KernelNetwork) -> KernelNetwork:
    """An equal KernelNetwork whose text similarity has inner width C + 1.

    <V f + v, W t + w> = <[f; 1], [V v]^T (W t + w)>: the image side of the similarity
    becomes the features themselves and a one, the text side absorbs both maps.
    Holds for `dot_product`; a similarity that divides by sqrt(R) sees another R.

    Args:
      literal: a network of any rank whose similarity is `dot_product`.

    Returns:
      A new network that computes the same function of image and text.
    """
    if literal.similarity is not dot_product:
        raise ValueError(
            "low_rank expects a KernelNetwork with similarity=dot_product, got "
            f"{literal.similarity.__name__}: another similarity is not bilinear."
        )
    features = literal.image_features
    network = KernelNetwork(
        features, literal.text_features, rank=features + 1, rngs=nnx.Rngs(0)
    )
    for name in ("image_key", "image_query"):
        ours, theirs = getattr(network, name), getattr(literal, name)
        ours.kernel[...] = theirs.kernel[...]
        ours.bias[...] = theirs.bias[...]
    one = jnp.zeros(features + 1).at[-1].set(1.0)
    network.text_key.kernel[...] = jnp.eye(features, features + 1)
    network.text_key.bias[...] = one
    key = jnp.concatenate(  # [C + 1, R]
        [literal.text_key.kernel[...], literal.text_key.bias[...][None]]
    )
    network.text_query.kernel[...] = literal.text_query.kernel[...] @ key.T
    network.text_query.bias[...] = literal.text_query.bias[...] @ key.T
    return network
