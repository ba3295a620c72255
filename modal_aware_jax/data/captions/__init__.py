"""Readers of images with several sentences each, as plain records.

Used by module, as in `captions.flickr8k.read(directory)`.
"""

from modal_aware_jax.data.captions import flickr8k as flickr8k
from modal_aware_jax.data.captions import flickr30k as flickr30k
from modal_aware_jax.data.captions import karpathy as karpathy
from modal_aware_jax.data.captions.records import Captioned, Captions

__all__ = ["Captioned", "Captions", "flickr30k", "flickr8k", "karpathy"]
