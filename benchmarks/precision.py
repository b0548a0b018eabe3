"""What lower precision brings: memory by part, and on a GPU speed and loss beside torch.amp's.

    python benchmarks/precision.py [--only PART] [--quick FOLDER]

Writes ``benchmarks/results/precision.json``.  Where there is no GPU its rows stay open, or as they
were measured on one.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from paired import ratios, take_turns
from record import RESULTS, row, unmeasured, update
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import optlab
from optlab.data import Dataset, load
from optlab.models import TEN_MILLION, make
from optlab.precision import MasterWeights, Policy

ROUNDS, SEEDS, STEPS, LIMIT = 15, (1, 2, 3), 300, 1.0
MEBIBYTE = 2**20

Row = dict[str, Any]


class Scheme:
    """A network with an optimizer in some precision; ``step`` trains it on a batch."""

    def __init__(self, name: str, model: nn.Module, device: str) -> None:
        dtype, _, form = name.partition(" ")
        self.model = model.to(device)
        self.master, self.policy = None, Policy("fp32", device)
        if form in ("weights", "weights with copies in fp32"):
            self.model.to(Policy(dtype).dtype)
        elif form == "autocast":
            self.policy = Policy(dtype, device)
        if form == "weights with copies in fp32":
            self.master = MasterWeights(self.model)
        self.params = list((self.master or self.model).parameters())
        self.optimizer = optlab.AdamW(self.params, 1e-3)
        if self.master:
            self.master.attach(self.optimizer)
        self.scaler = Policy(dtype, device).scaler()

    def passes(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward and backward; returns the loss."""
        with self.policy.autocast():
            outputs = self.model(x)
            loss = cross_entropy(outputs.flatten(0, -2).float(), y.flatten())
        self.scaler.scale(loss).backward()
        return loss.detach()


SCHEMES = (
    *("fp32", "bf16 autocast", "fp16 autocast", "bf16 weights"),
    *("bf16 weights with copies in fp32", "fp16 weights with copies in fp32"),
)


def memory(settings: dict[str, Any], samples: int) -> Iterator[Row]:
    """Bytes of each part while a transformer is trained, scheme by scheme."""
    torch.manual_seed(0)
    length = settings["context"]
    x = torch.randint(256, (samples, length))
    count = sum(p.numel() for p in make("gpt", **settings).parameters())
    title = f"memory in MiB, GPT of {count:,} parameters, {samples} sequences of {length}"
    single: dict[str, float] = {}
    for name in SCHEMES:
        parts = measured(Scheme(name, make("gpt", **settings), "cpu"), x)
        for part, size in {**parts, "all": sum(parts.values())}.items():
            of_single = size / single.setdefault(part, size) if single.get(part, size) else None
            yield row(f"{title}: {part}, {name}", [size / MEBIBYTE], None) | {
                "bytes_for_a_parameter": size / count,
                "over_fp32": of_single,
            }


def measured(scheme: Scheme, x: Tensor) -> dict[str, int]:
    """Bytes by part: the most that each has in a step."""
    own = places([*scheme.model.parameters(), *scheme.model.buffers(), x])
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.update((place, size) for place, size in places([tensor]).items() if place not in own)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scheme.passes(x, x)
    gradients = [p.grad for p in [*scheme.params, *scheme.model.parameters()] if p.grad is not None]
    copies = [] if scheme.master is None else scheme.params
    parts = {
        "weights": places(scheme.model.parameters()),
        "copies of weights": places(copies),
        "gradients": places(gradients),
        # Activations, and under autocast the weights as they were cast.
        "saved for the backward pass": saved,
    }
    scheme.optimizer.step()
    state = [value for own in scheme.optimizer.state.values() for value in own.values()]
    parts["moments"] = places([value for value in state if isinstance(value, Tensor)])
    return {name: sum(found.values()) for name, found in parts.items()}


def places(tensors: Any) -> dict[int, int]:
    """The memory behind tensors: address and size, each once."""
    memory = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in memory}


def trainers(device: str, quick: bool) -> dict[str, Callable[[int], tuple[nn.Module, Any]]]:
    """Tasks: what makes a network and draws its batches, by a seed."""

    def images(seed: int) -> tuple[nn.Module, Any]:
        data = load("digits") if quick else load("fashion_mnist").standardized()
        torch.manual_seed(seed)
        model = make("resnet", depth=8, width=4) if quick else make("resnet")
        return model, drawing(data, 8 if quick else 256)

    def text(seed: int) -> tuple[nn.Module, Any]:
        settings = dict(context=16, layers=1, heads=1, width=8) if quick else TEN_MILLION
        data = load("python_source", context=settings["context"])
        torch.manual_seed(seed)
        return make("gpt", **settings), drawing(data, 2 if quick else 32)

    def drawing(data: Dataset, size: int) -> Callable[[], tuple[Tensor, Tensor]]:
        data = data.to(device)

        def draw() -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(data.x), (size,), device=device)
            return data.x[chosen], data.y[chosen]

        return draw

    return {"ResNet-20 on 28x28": images, "GPT of 10.9M parameters": text}


def training(precision: str, whose: str, task: Any, seed: int, device: str) -> Callable[[], Tensor]:
    """A training step in mixed precision, by our policy and scaler or by torch.amp's."""
    model, draw = task(seed)
    optimizer = optlab.AdamW(model.to(device).parameters(), 1e-3)
    if whose == "ours":
        policy = Policy(precision, device)
        scaler: Any = policy.scaler()
        context: Any = policy.autocast
    else:
        dtype = Policy(precision).dtype
        scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        context = nullcontext if precision == "fp32" else lambda: torch.autocast(device, dtype)

    def step() -> Tensor:
        x, y = draw()
        optimizer.zero_grad()
        with context():
            outputs = model(x)
            loss = cross_entropy(outputs.flatten(0, -2), y.flatten())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def amp(device: str, quick: bool) -> Iterator[Row]:
    """Time of a step over torch.amp's, and losses after the same steps from several seeds."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    steps = 2 if quick else STEPS
    for task, make_task in trainers(device, quick).items():
        for precision in ("fp32", "bf16", "fp16"):
            contenders = {
                whose: training(precision, whose, make_task, 0, device)
                for whose in ("ours", "torch")
            }
            times = take_turns(contenders, 2 if quick else ROUNDS, 0.01 if quick else 0.5, wait, 2)
            title = f"{task}, {precision}: "
            found = ratios(times["ours"], times["torch"])
            yield row(title + "time of a step over torch.amp's", found, LIMIT, at_most=True) | {
                "steps_a_second": 1 / statistics.median(times["ours"])
            }
            finals: dict[str, list[float]] = {}
            for whose in contenders:
                for seed in SEEDS:
                    step = training(precision, whose, make_task, seed, device)
                    losses = torch.stack([step() for _ in range(steps)])
                    finals.setdefault(whose, []).append(float(losses[-50:].mean()))
            ours, theirs = (statistics.mean(finals[whose]) for whose in contenders)
            spread = max(max(f) - min(f) for f in finals.values())
            apart = 0.0 if ours == theirs else abs(ours - theirs) / max(spread, 1e-12)
            yield row(title + "distance of final losses over the seeds' spread", [apart], LIMIT) | {
                "losses": finals
            }


def without_gpu() -> Iterator[Row]:
    """The rows that wait for one."""
    for task in trainers("cpu", True):
        for precision in ("fp32", "bf16", "fp16"):
            yield unmeasured(f"{task}, {precision}: time of a step over torch.amp's", LIMIT)
            words = "distance of final losses over the seeds' spread"
            yield unmeasured(f"{task}, {precision}: {words}", LIMIT)


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    gpu = torch.cuda.is_available()
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "memory": lambda: memory(TEN_MILLION, 4),
        "amp": lambda: amp("cuda", False) if gpu else without_gpu(),
    }
    parser.add_argument("--only", choices=parts, help="measure this; the other rows stay")
    options = parser.parse_args()
    quick = options.quick
    if quick:
        torch.set_num_threads(1)
        parts["memory"] = lambda: memory(dict(context=16, layers=1, heads=1, width=8), 2)
        parts["amp"] = lambda: amp("cpu", True)
    hardware = {"hardware": torch.cuda.get_device_name()} if gpu else {}
    rows: list[Row] = []
    for name in [options.only] if options.only else parts:
        own = hardware if name == "amp" else {}
        rows += [entry | own | {"torch_version": torch.__version__} for entry in parts[name]()]
    update("precision", rows, quick or RESULTS)


if __name__ == "__main__":
    main()
