"""Our encoders' variables by the names of the transformers library's checkpoints."""

from collections.abc import Mapping

import flax.nnx as nnx

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP, BERTText
from modal_aware_jax.backbones.fill import (
    Slot,
    fused_slots,
    layer_slots,
    plain_slot,
)
from modal_aware_jax.backbones.siglip import SigLIPImage, SigLIPText
from modal_aware_jax.backbones.vit import PatchEmbedding, ViT

# What the encoders have no use for: classifiers, heads of pretraining, BERT's pooler
# and ViT's, tables of the numbers 0, 1, 2, ... A key is left out where it starts so.
IGNORED = {
    BERT: ("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids"),
    ViT: (
        *("pooler.", "classifier.", "decoder.", "embeddings.mask_token"),
        *("head.", "pre_logits."),  # timm's
    ),
    CLIP: (
        "text_model.pooler.",
        "text_model.embeddings.position_ids",
        "vision_model.embeddings.position_ids",
    ),
}


def slots_of(model: nnx.Module, state: Mapping) -> dict[str, Slot]:
    """The slots of a `ViT`, `BERT` or `CLIP` in the names that the state uses."""
    if isinstance(model, BERT):
        return bert_slots("", model)
    if isinstance(model, CLIP):
        return clip_slots(model)
    return timm_vit_slots(model) if is_timm(state) else vit_slots(model)


def plain_names(state: Mapping, kind: type) -> dict:
    """The state without heads, and without what the library's versions differ in.

    A model with a head has all others' names below its own ('bert.'); the oldest BERT
    checkpoints call scale and shift of a norm gamma and beta.
    """
    below = {BERT: "bert.", ViT: "vit."}.get(kind, "")
    plain = {}
    for key, value in state.items():
        key = key.removeprefix(below)
        if key.startswith(IGNORED[kind]):
            continue
        if "LayerNorm." in key:
            key = key.replace("LayerNorm.gamma", "LayerNorm.weight")
            key = key.replace("LayerNorm.beta", "LayerNorm.bias")
        plain[key] = value
    return plain


def is_timm(state: Mapping) -> bool:
    """Whether a ViT's state has timm's names."""
    return "cls_token" in state or "patch_embed.proj.weight" in state


def _layers(prefix, names):
    slots = {}
    for name, layer in names.items():
        slots |= layer_slots(f"{prefix}{name}", layer)
    return slots


def _patch_slots(prefix, embedding: PatchEmbedding):
    """The convolution that reads a patch, [D, 3, P, Q] there, is a dense layer here."""
    dense, (rows, columns) = embedding.dense, embedding.patch_size
    features = dense.kernel.shape[1]

    def arrange(array):
        return (array.transpose(2, 3, 1, 0).reshape(-1, features),)

    shape = features, 3, rows, columns
    slots = {f"{prefix}.weight": Slot((dense.kernel,), shape, arrange)}
    if dense.bias is not None:
        slots[f"{prefix}.bias"] = plain_slot(dense.bias)
    return slots


def bert_slots(prefix: str, model: BERT) -> dict[str, Slot]:
    """Slots of a `BERT` below a prefix."""
    slots = _layers(
        f"{prefix}embeddings.",
        {
            "word_embeddings": model.words,
            "position_embeddings": model.positions,
            "token_type_embeddings": model.segments,
            "LayerNorm": model.norm,
        },
    )
    for i, block in enumerate(model.blocks):
        names = {
            "attention.self.query": block.attention.query,
            "attention.self.key": block.attention.key,
            "attention.self.value": block.attention.value,
            "attention.output.dense": block.attention.output,
            "attention.output.LayerNorm": block.attention_norm,
            "intermediate.dense": block.feed_forward.inner,
            "output.dense": block.feed_forward.outer,
            "output.LayerNorm": block.feed_forward_norm,
        }
        slots |= _layers(f"{prefix}encoder.layer.{i}.", names)
    return slots


def vit_slots(model: ViT) -> dict[str, Slot]:
    """Slots of a `ViT` in the names of transformers."""
    embedding = model.embedding
    positions, width = embedding.positions.shape
    slots = {
        "embeddings.cls_token": plain_slot(embedding.class_token, (1, 1, width)),
        "embeddings.position_embeddings": plain_slot(
            embedding.positions, (1, positions, width)
        ),
    }
    slots |= _patch_slots("embeddings.patch_embeddings.projection", embedding)
    for i, block in enumerate(model.blocks):
        names = {
            "attention.attention.query": block.attention.query,
            "attention.attention.key": block.attention.key,
            "attention.attention.value": block.attention.value,
            "attention.output.dense": block.attention.output,
            "layernorm_before": block.attention_norm,
            "intermediate.dense": block.feed_forward.inner,
            "output.dense": block.feed_forward.outer,
            "layernorm_after": block.feed_forward_norm,
        }
        slots |= _layers(f"encoder.layer.{i}.", names)
    return slots | layer_slots("layernorm", model.norm)


def timm_vit_slots(model: ViT) -> dict[str, Slot]:
    """Slots of a `ViT` in timm's names: query, key and value are one layer there."""
    embedding = model.embedding
    positions, width = embedding.positions.shape
    slots = {
        "cls_token": plain_slot(embedding.class_token, (1, 1, width)),
        "pos_embed": plain_slot(embedding.positions, (1, positions, width)),
    }
    slots |= _patch_slots("patch_embed.proj", embedding)
    for i, block in enumerate(model.blocks):
        attention, prefix = block.attention, f"blocks.{i}."
        slots |= fused_slots(
            f"{prefix}attn.qkv.weight",
            f"{prefix}attn.qkv.bias",
            (attention.query, attention.key, attention.value),
        )
        names = {
            "attn.proj": attention.output,
            "norm1": block.attention_norm,
            "norm2": block.feed_forward_norm,
            "mlp.fc1": block.feed_forward.inner,
            "mlp.fc2": block.feed_forward.outer,
        }
        slots |= _layers(prefix, names)
    return slots | layer_slots("norm", model.norm)


def clip_slots(model: CLIP) -> dict[str, Slot]:
    """Slots of a `CLIP`, Chinese-CLIP or SigLIP."""
    image, text = model.image, model.text
    slots = _patch_slots(
        "vision_model.embeddings.patch_embedding", image.embedding
    ) | _block_slots("vision_model.", image.blocks)
    slots["vision_model.embeddings.position_embedding.weight"] = plain_slot(
        image.embedding.positions
    )
    slots |= layer_slots("vision_model.post_layernorm", image.norm)
    if isinstance(image, SigLIPImage):
        slots |= _pool_slots("vision_model.head.", image.pool)
        slots["logit_scale"] = plain_slot(model.log_scale, (1,))
        slots["logit_bias"] = plain_slot(model.logit_bias, (1,))
    else:
        slots["vision_model.embeddings.class_embedding"] = plain_slot(
            image.embedding.class_token
        )
        slots |= layer_slots("vision_model.pre_layrnorm", image.first_norm)
        slots |= layer_slots("visual_projection", image.projection)
        slots["logit_scale"] = plain_slot(model.log_scale)
    head = "text_model.head" if isinstance(text, SigLIPText) else "text_projection"
    slots |= layer_slots(head, text.projection)
    if isinstance(text, BERTText):
        return slots | bert_slots("text_model.", text.bert)
    names = {
        "embeddings.token_embedding": text.embedding.words,
        "embeddings.position_embedding": text.embedding.positions,
        "final_layer_norm": text.norm,
    }
    return (
        slots | _layers("text_model.", names) | _block_slots("text_model.", text.blocks)
    )


def _block_slots(prefix, blocks):
    slots = {}
    for i, block in enumerate(blocks):
        names = {
            "self_attn.q_proj": block.attention.query,
            "self_attn.k_proj": block.attention.key,
            "self_attn.v_proj": block.attention.value,
            "self_attn.out_proj": block.attention.output,
            "layer_norm1": block.attention_norm,
            "layer_norm2": block.feed_forward_norm,
            "mlp.fc1": block.feed_forward.inner,
            "mlp.fc2": block.feed_forward.outer,
        }
        slots |= _layers(f"{prefix}encoder.layers.{i}.", names)
    return slots


def _pool_slots(prefix, pool):
    attention = pool.attention
    fused = fused_slots(
        f"{prefix}attention.in_proj_weight",
        f"{prefix}attention.in_proj_bias",
        (attention.query, attention.key, attention.value),
    )
    probe = {f"{prefix}probe": plain_slot(pool.probe, (1, 1, *pool.probe.shape))}
    names = {
        "attention.out_proj": attention.output,
        "layernorm": pool.norm,
        "mlp.fc1": pool.feed_forward.inner,
        "mlp.fc2": pool.feed_forward.outer,
    }
    return fused | probe | _layers(prefix, names)
