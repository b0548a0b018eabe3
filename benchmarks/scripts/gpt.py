"""Train a small byte-level GPT on the source of Python's standard library.

    python benchmarks/scripts/gpt.py [--steps 200] [--optimizer AdamW] [--dtype float64]

An ordinary PyTorch script. To train with the book's optimizers instead, change one line:
``import torch.optim as optim`` into ``import optlab as optim``.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import torch
import torch.optim as optim
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.optim.lr_scheduler import LambdaLR

#: What every Python installation has to read.
MODULES = [
    *("argparse", "ast", "calendar", "configparser", "dataclasses", "difflib", "doctest", "enum"),
    *("functools", "inspect", "random", "statistics", "subprocess", "tarfile", "threading"),
]
#: The highest learning rate, where it is not that of Adam and its relatives.
RATES = {"SGD": 0.3, "Adagrad": 1e-2, "Adadelta": 1.0}
CONTEXT, BATCH, WARMUP = 64, 16, 20


class Block(nn.Module):
    """Attention to what came before, then two layers on each position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.before_attention(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width / heads)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.before_mlp(x))


class GPT(nn.Module):
    """A decoder over bytes, whose last layer shares the weights of the first."""

    def __init__(self, width: int = 96, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(256, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def text() -> Tensor:
    """The modules' bytes, one after the other."""
    folder = Path(sysconfig.get_path("stdlib"))
    source = b"".join((folder / f"{name}.py").read_bytes() for name in MODULES)
    return torch.frombuffer(bytearray(source), dtype=torch.uint8).long()


def warmup_and_cosine(step: int, steps: int) -> float:
    """The factor on the learning rate: up a line, then down a cosine."""
    rise = min(1.0, (step + 1) / WARMUP)
    return rise * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small GPT.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--lr", type=float, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_default_dtype(getattr(torch, args.dtype))

    data, model = text(), GPT()
    print(f"{len(data)} bytes, {sum(p.numel() for p in model.parameters())} parameters")
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]  # biases and norms: no decay
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    lr = args.lr or RATES.get(args.optimizer, 1e-3)
    optimizer = getattr(optim, args.optimizer)(groups, lr=lr)
    scheduler = LambdaLR(optimizer, lambda step: warmup_and_cosine(step, args.steps))

    for step in range(args.steps):
        starts = torch.randint(len(data) - CONTEXT, (BATCH, 1))
        windows = data[starts + torch.arange(CONTEXT + 1)]
        logits = model(windows[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        print(f"step {step} loss {loss.item()!r}", flush=True)


if __name__ == "__main__":
    main()
