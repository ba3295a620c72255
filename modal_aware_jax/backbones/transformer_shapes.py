"""From a checkpoint's `config.json` to one of our encoders, its weights still empty."""

import math
import re
from collections.abc import Mapping

from flax import nnx

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP, BERTText, CLIPImage, CLIPText
from modal_aware_jax.backbones.siglip import SigLIPImage, SigLIPText
from modal_aware_jax.backbones.transformer import gelu, gelu_tanh, quick_gelu
from modal_aware_jax.backbones.vit import ViT

ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}
# The values that the transformers library takes where a part's config leaves them out.
DEFAULTS = {
    "vit": {"image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-12},
    "bert": {
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    },
    "clip_vision": {
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "clip_text": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
    "siglip_vision": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "siglip_text": {
        "vocab_size": 32000,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
}
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
}
# Heads of timm's ViTs by the size in their names; their number is in no weight.
TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12}
TIMM_HEADS |= dict.fromkeys(("large", "huge", "giant", "gigantic", "so400m"), 16)


def empty_model(facts: Mapping, options: Mapping) -> ViT | BERT | CLIP:
    """The model of a `config.json`, its variables shapes without values.

    Args:
      facts: what the file says.
      options: `dropout_rate`, `implementation`, `dtype`, as the modules take them.

    Raises:
      ValueError: names the kind or the setting that is not known here.

    >>> facts = {"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 1}
    >>> empty_model(facts, {}).words.embedding.shape
    (30522, 24)
    """
    kind = facts.get("model_type")
    if kind not in BUILDERS:
        raise ValueError(
            f"model_type {kind!r} is not one of {', '.join(BUILDERS)}. Save one of "
            "those with the transformers library's save_pretrained."
        )
    return nnx.eval_shape(lambda: BUILDERS[kind](facts, options, nnx.Rngs(0)))


def timm_facts(facts: Mapping, shapes: Mapping) -> dict:
    """What transformers would write in `config.json` for a ViT of timm.

    Args:
      facts: timm's own `config.json`.
      shapes: of the weights by key.
    """
    name = facts["architecture"]
    sizes = [word for word in re.split(r"[_.]", name) if word in TIMM_HEADS]
    heads = (facts.get("model_args") or {}).get("num_heads")
    heads = heads or (TIMM_HEADS[sizes[0]] if sizes else None)
    known = ("cls_token", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    if heads is None or any(key not in shapes for key in known):
        raise ValueError(
            f"timm's {name!r} is not a ViT of a known size. Take a vit_* of "
            f'{", ".join(TIMM_HEADS)}, or write "model_args": {{"num_heads": N}} '
            "into config.json."
        )
    grid = math.isqrt(shapes["pos_embed"][1] - 1)
    patch = tuple(shapes["patch_embed.proj.weight"][2:])
    layers = {key.split(".")[1] for key in shapes if key.startswith("blocks.")}
    return {
        "model_type": "vit",
        "hidden_size": shapes["cls_token"][-1],
        "intermediate_size": shapes["blocks.0.mlp.fc1.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": (grid * patch[0], grid * patch[1]),
        "layer_norm_eps": 1e-6,
    }


def _blocks(facts, options):
    """The arguments that all encoders share."""
    name = facts["hidden_act"]
    if name not in ACTIVATIONS:
        raise ValueError(
            f"hidden_act {name!r} is not one of {', '.join(ACTIVATIONS)}: this encoder "
            "has another activation than those that are known here."
        )
    return {
        "num_layers": facts["num_hidden_layers"],
        "num_heads": facts["num_attention_heads"],
        "hidden_features": facts["intermediate_size"],
        "activation": ACTIVATIONS[name],
        "epsilon": facts["layer_norm_eps"],
        **options,
    }


def _sizes(facts):
    def size(value):
        return value if isinstance(value, int) else tuple(value)

    return size(facts["image_size"]), size(facts["patch_size"]), facts["hidden_size"]


def _vit(facts, options, rngs):
    facts = BASE | DEFAULTS["vit"] | facts
    return ViT(*_sizes(facts), **_blocks(facts, options), rngs=rngs)


def _bert(facts, options, rngs):
    facts = BASE | DEFAULTS["bert"] | facts
    positions = facts.get("position_embedding_type") or "absolute"
    if positions != "absolute" or facts.get("is_decoder"):
        raise ValueError(
            f"this BERT has {positions} positions"
            f"{' and decodes' if facts.get('is_decoder') else ''}: only encoders with "
            "absolute positions are known. Take another checkpoint."
        )
    return BERT(
        facts["vocab_size"],
        facts["hidden_size"],
        max_length=facts["max_position_embeddings"],
        num_segments=facts["type_vocab_size"],
        **_blocks(facts, options),
        rngs=rngs,
    )


def _image_of_clip(facts, options, rngs):
    part = BASE | DEFAULTS["clip_vision"] | (facts.get("vision_config") or {})
    projected = facts.get("projection_dim", 512)
    return CLIPImage(*_sizes(part), projected, **_blocks(part, options), rngs=rngs)


def _clip(facts, options, rngs):
    part = BASE | DEFAULTS["clip_text"] | (facts.get("text_config") or {})
    end = part["eos_token_id"]
    text = CLIPText(
        part["vocab_size"],
        part["hidden_size"],
        facts.get("projection_dim", 512),
        max_length=part["max_position_embeddings"],
        # Configs from before 2023 say 2, which is no word piece of CLIP's: the library
        # takes the largest number of a text there.
        end_id=None if end == 2 else end,
        **_blocks(part, options),
        rngs=rngs,
    )
    return CLIP(_image_of_clip(facts, options, rngs), text)


def _chinese_clip(facts, options, rngs):
    bert = _bert(facts.get("text_config") or {}, options, rngs)
    projected = facts.get("projection_dim", 512)
    text = BERTText(bert, projected, dtype=options.get("dtype"), rngs=rngs)
    return CLIP(_image_of_clip(facts, options, rngs), text)


def _siglip(facts, options, rngs):
    part = BASE | DEFAULTS["siglip_vision"] | (facts.get("vision_config") or {})
    if part.get("vision_use_head") is False:
        raise ValueError(
            "this SigLIP has no pooling head (vision_use_head is false), so that its "
            "images have no vector. Take a checkpoint of the whole model."
        )
    image = SigLIPImage(*_sizes(part), **_blocks(part, options), rngs=rngs)
    part = BASE | DEFAULTS["siglip_text"] | (facts.get("text_config") or {})
    text = SigLIPText(
        part["vocab_size"],
        part["hidden_size"],
        part.get("projection_size") or part["hidden_size"],
        max_length=part["max_position_embeddings"],
        **_blocks(part, options),
        rngs=rngs,
    )
    return CLIP(image, text, scale=10.0, bias=-10.0)


BUILDERS = {
    "vit": _vit,
    "bert": _bert,
    "clip": _clip,
    "chinese_clip": _chinese_clip,
    "siglip": _siglip,
}
