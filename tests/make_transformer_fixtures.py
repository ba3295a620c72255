"""Stores what the transformers library and timm compute: `transformers.npz`.

    pip install torch transformers timm    # in an environment of its own
    python tests/make_transformer_fixtures.py

Small models of each kind with the weights of `seeded_weights.transformer`, which need
not be stored. Of each case NAME:
- `NAME/config.json`, `NAME/shapes` (JSON: the shapes of the file's arrays by key) and,
  of sharded models, `NAME/model.safetensors.index.json`, as the library writes them;
- `NAME/ids`, `NAME/mask` and what came of them; images are `seeded_weights.images`.

Made with torch 2.14.1, transformers 5.24.0 and timm 1.0.31.
"""

import json
import pathlib
import tempfile

import numpy as np
import seeded_weights
import timm
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file

STORED = pathlib.Path(__file__).with_name("transformers.npz")
INDEX = "model.safetensors.index.json"
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
WORDS = {"vocab_size": 20, "max_position_embeddings": 9}
PIXELS = {"image_size": 12, "patch_size": 4}
# The word piece 17 ends a text and 19 is the largest number; 2 pads after the end.
IDS = np.array([[1, 5, 7, 17, 2, 2], [1, 17, 2, 17, 2, 2], [1, 9, 8, 4, 6, 17]])
MASK = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
END_IS_LARGEST = np.where(IDS == 17, 19, IDS)


ONE = {"num_hidden_layers": 1}


def clip(text, vision):
    ends = {"bos_token_id": 1, "pad_token_id": 2}
    return hf.CLIPConfig(
        text_config=SIZE | WORDS | ends | text,
        vision_config=SIZE | PIXELS | vision,
        projection_dim=10,
    )


def cases():
    """(name, class, config, size of shards, ids) of each model."""
    one = "1GB"
    yield "vit", hf.ViTModel, hf.ViTConfig(**SIZE, **PIXELS), one, None
    shape = {"image_size": (8, 12), "patch_size": (4, 3), "num_labels": 3}
    facts = SIZE | shape | {"layer_norm_eps": 0.02, "hidden_act": "gelu_new"}
    yield "vit_wide", hf.ViTForImageClassification, hf.ViTConfig(**facts), one, None
    yield "bert", hf.BertModel, hf.BertConfig(**SIZE, **WORDS), one, IDS
    facts = SIZE | WORDS | {"layer_norm_eps": 0.02}
    yield "bert_head", hf.BertForMaskedLM, hf.BertConfig(**facts), "6KB", IDS
    # OpenAI's: quick_gelu, and an end of text that the config does not know.
    facts = clip({"eos_token_id": 2}, ONE)
    yield "clip", hf.CLIPModel, facts, "12KB", END_IS_LARGEST
    # OpenCLIP's exports: gelu.
    act = {"hidden_act": "gelu", "layer_norm_eps": 0.02}
    facts = clip({"eos_token_id": 17} | act | ONE, act)
    yield "openclip", hf.CLIPModel, facts, one, IDS
    facts = hf.ChineseCLIPConfig(
        text_config=SIZE | WORDS | ONE,
        vision_config=SIZE | PIXELS | ONE,
        projection_dim=10,
    )
    yield "chinese_clip", hf.ChineseCLIPModel, facts, one, IDS
    facts = hf.SiglipConfig(
        text_config=SIZE | WORDS | ONE, vision_config=SIZE | PIXELS | ONE
    )
    yield "siglip", hf.SiglipModel, facts, one, IDS


def with_seeded_weights(kind, facts, shard, folder):
    """The model read from the folder that it was saved to, and the files' texts."""
    kind(facts).save_pretrained(folder, max_shard_size=shard)
    shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        here = {key: list(value.shape) for key, value in load_file(path).items()}
        weights = seeded_weights.transformer(here)
        save_file(weights, path, metadata={"format": "pt"})
        shapes |= here
    texts = {"shapes": json.dumps(shapes)}
    for name in ("config.json", INDEX):
        if (folder / name).is_file():
            texts[name] = (folder / name).read_text("utf-8")
    return kind.from_pretrained(folder, attn_implementation="eager").eval(), texts


def pixels(*size):
    images = seeded_weights.images(2, *size)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def pooled(output):
    return getattr(output, "pooler_output", output)


def image_outputs(network, sizes, whole=None):
    """Last hidden states and, of a whole model, projections, by the images' size."""
    outputs = {}
    for size in sizes:
        given = {"pixel_values": pixels(*size)}
        if size != sizes[0]:  # other than that of the positions
            given["interpolate_pos_encoding"] = True
        name = "x".join(map(str, size))
        outputs[f"tokens/{name}"] = network(**given).last_hidden_state
        if whole is not None:
            outputs[f"image/{name}"] = pooled(whole.get_image_features(**given))
    return outputs


def outputs_of(name, model, ids):
    if name.startswith("vit"):
        sizes = [(12, 12), (20, 16), (14, 9)] if name == "vit" else [(8, 12)]
        return image_outputs(getattr(model, "vit", model), sizes)
    ids, mask = torch.from_numpy(ids), torch.from_numpy(MASK)
    given = {"input_ids": ids, "attention_mask": mask}
    if name.startswith("bert"):
        bert = getattr(model, "bert", model)
        return {"tokens": bert(**given).last_hidden_state}
    sizes = [(12, 12), (16, 9)] if name == "openclip" else [(12, 12)]
    outputs = image_outputs(model.vision_model, sizes, model)
    outputs["text_tokens"] = model.text_model(**given).last_hidden_state
    outputs["text"] = pooled(model.get_text_features(**given))
    if name == "siglip":
        outputs["text_unmasked"] = pooled(model.get_text_features(input_ids=ids))
    both = model(**given, pixel_values=pixels(12, 12))
    return outputs | {"logits": both.logits_per_image}


def timm_vit():
    facts = {
        "architecture": "vit_tiny_patch4_12",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 12, 12]},
    }
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=3
    )
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    weights = seeded_weights.transformer(shapes)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    tokens = model.eval().forward_features(pixels(12, 12))
    texts = {"config.json": json.dumps(facts), "shapes": json.dumps(shapes)}
    return texts | {"tokens/12x12": tokens.numpy()}


@torch.no_grad()
def main():
    stored = {f"timm/{part}": value for part, value in timm_vit().items()}
    for name, kind, facts, shard, ids in cases():
        with tempfile.TemporaryDirectory() as folder:
            model, texts = with_seeded_weights(kind, facts, shard, pathlib.Path(folder))
        if ids is not None:
            texts |= {"ids": ids.astype(np.int32), "mask": MASK.astype(np.int32)}
        outputs = {k: v.numpy() for k, v in outputs_of(name, model, ids).items()}
        stored |= {f"{name}/{k}": v for k, v in (texts | outputs).items()}
    np.savez_compressed(STORED, **stored)
    print(f"{STORED}: {STORED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
