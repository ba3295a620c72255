"""The network of `train_step.py` in PyTorch, and a child that trains it.

    python benchmarks/torch_network.py    # serves `train_step.py`

ResNet-18 in two halves, a bag of words through two dense layers, a modal-aware block
beside each half, concatenation and K bits, trained by all triplets and Adam: the same
names of weights as ours, so that they can be carried over and both sides compared
number by number. Written for speed as one would in PyTorch: channels last, one product
instead of a 1x1 convolution, fused Adam, autocast for bfloat16, `torch.compile`.
"""

import time

import numpy as np
import torch
from alternate import forget_peak, num_cores, resident_peak, serve, time_steps
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MARGIN, RATE, DECAY = 2.0, 1e-4, 1e-5
WHOLE_BATCH = 256  # all triplets at once up to this batch, as on our side


class ConvNorm(nn.Module):
    def __init__(self, inputs, features, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x):
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, inputs, features, stride):
        super().__init__()
        self.first = ConvNorm(inputs, features, 3, stride)
        self.second = ConvNorm(features, features, 3)
        self.projection = None
        if stride != 1 or inputs != features:
            self.projection = ConvNorm(inputs, features, 1, stride)

    def forward(self, x):
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(y + (self.projection(x) if self.projection else x))


class ResNet18(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = ConvNorm(3, width, 7, 2)
        stages, inputs = [], width
        for factor, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            features = factor * width
            first = BasicBlock(inputs, features, stride)
            stages.append(nn.Sequential(first, BasicBlock(features, features, 1)))
            inputs = features
        self.stages = nn.ModuleList(stages)

    def lower(self, images):
        x = functional.max_pool2d(functional.relu(self.stem(images)), 3, 2, 1)
        for stage in self.stages[:3]:
            x = stage(x)
        return x

    def upper(self, maps):
        return self.stages[3](maps)


def position_scores(image, key, query):
    towards = query @ key.weight  # [B, C]
    scores = torch.einsum("bchw,bc->bhw", image, towards)
    return scores + (query @ key.bias)[:, None, None]


class KernelNetwork(nn.Module):
    def __init__(self, image, text, *, rank):
        super().__init__()
        self.image_key = nn.Linear(image, image)
        self.image_query = nn.Linear(text, image)
        self.text_key = nn.Linear(image, rank)
        self.text_query = nn.Linear(text, rank)

    def forward(self, image, text):
        weights = position_scores(image, self.image_key, self.image_query(text))
        mean = image.mean((2, 3))
        weight = (self.text_key(mean) * self.text_query(text)).sum(-1)
        return weights[:, None] * image, weight[:, None] * text


class PositionKernel(nn.Module):
    def __init__(self, image, text, rank=128):
        super().__init__()
        self.rank = rank
        self.image_key = nn.Linear(image, rank)
        self.text_query = nn.Linear(text, rank)

    def forward(self, image, text):
        scores = position_scores(image, self.image_key, self.text_query(text))
        shares = (scores.flatten(1) / self.rank**0.5).softmax(-1)
        weights = shares.view_as(scores) * shares.shape[1]
        return weights[:, None] * image, text


def softmax(logits):
    return logits.softmax(-1)


def double_sigmoid(logits):
    return 2 * logits.sigmoid()


class ChannelAttention(nn.Module):
    def __init__(self, image, text, *, squeeze, gate):
        super().__init__()
        self.gate = gate
        self.squeeze = nn.Linear(image + text, squeeze) if squeeze else None
        self.image_logits = nn.Linear(squeeze or image + text, image)
        self.text_logits = nn.Linear(squeeze or image + text, text)

    def forward(self, image, text):
        pooled = torch.cat([image.mean((2, 3)), text], -1)
        if self.squeeze is not None:
            pooled = functional.relu(self.squeeze(pooled))
        image_gates = self.gate(self.image_logits(pooled))
        return image * image_gates[..., None, None], text * self.gate(
            self.text_logits(pooled)
        )


class Block(nn.Module):
    def __init__(self, image, text, form):
        super().__init__()
        if form == "recommended":
            self.kernel_network = PositionKernel(image, text)
            gate, squeeze = double_sigmoid, 128
        else:
            rank = text if form == "literal" else min(image + 1, text)
            self.kernel_network = KernelNetwork(image, text, rank=rank)
            gate, squeeze = softmax, 128 if form == "squeezed" else 0
        self.channel_attention = ChannelAttention(
            image, text, squeeze=squeeze, gate=gate
        )

    def forward(self, image, text):
        return self.channel_attention(*self.kernel_network(image, text))


class Text(nn.Module):
    def __init__(self, words, wide, narrow):
        super().__init__()
        self.dense_wide = nn.Linear(words, wide)
        self.dense_narrow = nn.Linear(wide, narrow)


class Head(nn.Module):
    def __init__(self, inputs, bits):
        super().__init__()
        self.dense = nn.Linear(inputs, bits)


class Network(nn.Module):
    def __init__(self, spec):
        super().__init__()
        width, wide, narrow = spec["width"], spec["wide"], spec["narrow"]
        self.backbone = ResNet18(width)
        self.text = Text(spec["words"], wide, narrow)
        self.block1 = Block(4 * width, wide, spec["form"])
        self.block2 = Block(8 * width, narrow, spec["form"])
        self.head = Head(8 * width + narrow, spec["bits"])

    def forward(self, images, words):
        maps = self.backbone.lower(images)
        text = functional.relu(self.text.dense_wide(words))
        maps, text = self.block1(maps, text)
        maps = self.backbone.upper(maps)
        maps, text = self.block2(maps, self.text.dense_narrow(text))
        return self.head.dense(torch.cat([maps.mean((2, 3)), text], -1))


def hinge_sum(d, positive, negative):
    hinge = functional.relu(MARGIN + d[:, :, None] - d[:, None, :])
    hinge = torch.where(negative[:, None, :], hinge, 0.0).sum(-1)
    return torch.where(positive, hinge, 0.0).sum()


def triplet_ranking(h, labels, anchors=16):
    squared = (h[:, None] - h[None]).square().sum(-1)
    apart = squared > 1e-37
    d = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    shared = labels @ labels.T > 0
    positive = shared & ~torch.eye(len(h), dtype=torch.bool, device=h.device)
    count = (positive.sum(-1).double() * (~shared).sum(-1).double()).sum().float()
    if len(h) <= WHOLE_BATCH:
        return hinge_sum(d, positive, ~shared) / count
    total = 0.0
    for rows in zip(*(x.split(anchors) for x in (d, positive, ~shared)), strict=True):
        total = total + checkpoint(hinge_sum, *rows, use_reentrant=False)
    return total / count


def carry_over(model, path):
    """Fills the model with our weights: kernels turned, names kept."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    weights = {}
    with np.load(path) as saved:
        for name in saved:
            value, (owner, last) = saved[name], name.rsplit(".", 1)
            if last == "kernel":
                value = value.transpose(*((3, 2, 0, 1) if value.ndim == 4 else (1, 0)))
            weights[f"{owner}.{names[last]}"] = torch.from_numpy(value.copy())
    rest = model.load_state_dict(weights, strict=False)
    missing = {
        key for key in rest.missing_keys if key in dict(model.named_parameters())
    }
    if missing or rest.unexpected_keys:
        raise ValueError(f"not the same network: {missing}, {rest.unexpected_keys}")


class Trainer:
    """Builds the network of a spec and trains it on one random batch."""

    def __init__(self, spec):
        torch.set_num_threads(num_cores())
        torch.set_flush_denormal(True)  # as XLA does
        torch.backends.cuda.matmul.allow_tf32 = True  # and so does JAX by default
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self.spec = spec
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = {}
        if spec["mode"] != "eager":
            layout = {"memory_format": torch.channels_last}
        self.model = Network(spec).to(self.device, **layout).train()
        if spec.get("weights"):
            carry_over(self.model, spec["weights"])
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=RATE, weight_decay=DECAY, fused=True
        )
        with np.load(spec["data"]) as data:
            images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2)
            self.batch = (
                images.to(self.device, **layout)
                if layout
                else images.contiguous().to(self.device),
                torch.from_numpy(data["text"]).to(self.device),
                torch.from_numpy(data["labels"]).float().to(self.device),
            )
        self.loss = self.plain_loss
        if spec["mode"] == "compile":
            self.loss = torch.compile(self.plain_loss)

    def plain_loss(self, images, words, labels):
        half = self.spec["dtype"] == "bfloat16"
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=half):
            relaxed = self.model(images, words)
        return triplet_ranking(torch.tanh(relaxed.float()), labels)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(*self.batch)
        loss.backward()
        self.optimizer.step()
        return loss

    def wait(self, loss):
        """The loss, once the whole step is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return float(loss)

    def forget(self):
        forget_peak()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def gradient_norm(self):
        """Of the last step."""
        squares = [p.grad.double().square().sum() for p in self.model.parameters()]
        return float(torch.stack(squares).sum().sqrt())

    def peak_bytes(self):
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resident_peak()


def main():
    trainer = None

    def answer(request):
        nonlocal trainer
        if spec := request.get("build"):
            start = time.perf_counter()
            trainer = Trainer(spec)
            built = time.perf_counter()
            loss = float(trainer.step())
            first = time.perf_counter() - built
            return {
                "torch": torch.__version__,
                "build_s": built - start,
                "compile_s": first - time_steps(trainer.step, trainer.wait, 2)["wall"]
                if not spec.get("weights")
                else first,
                "loss": loss,
                "gradient_norm": trainer.gradient_norm(),
            }
        if "peak" in request:
            return {"peak_bytes": trainer.peak_bytes()}
        if "forget" in request:
            trainer.forget()
            return {}
        return time_steps(trainer.step, trainer.wait, request["steps"])

    serve(answer)


if __name__ == "__main__":
    main()
