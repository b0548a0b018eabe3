"""Train a small convolutional network on Fashion-MNIST.

    python benchmarks/scripts/convnet.py [--steps 150] [--optimizer SGD] [--dtype float64]

The data are read from the folder that OPTLAB_FASHION_MNIST names, or from where Debian's
package ``dataset-fashion-mnist`` puts them.

An ordinary PyTorch script. To train with the book's optimizers instead, change one line:
``import torch.optim as optim`` into ``import optlab as optim``.
"""

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
import torch
import torch.optim as optim
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

DEBIAN = "/usr/share/datasets/fashion-mnist"
FILES = ["{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"]
#: Of the training images' pixels.
MEAN, DEVIATION = 72.94, 90.02
#: The highest learning rate, where it is not that of Adam and its relatives.
RATES = {"SGD": 0.1, "Adagrad": 1e-2, "Adadelta": 1.0}
BATCH = 64


def idx(path: Path) -> Tensor:
    """The array in an idx file: two zeros, the type (8: bytes), the rank, the shape, the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an idx file of bytes: it begins with {data[:4]!r}")
    begin = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:begin], ">u4")
    return torch.tensor(np.frombuffer(data, np.uint8, offset=begin).reshape(shape))


def fashion_mnist(part: str = "train") -> tuple[Tensor, Tensor]:
    """Images of mean 0 and deviation 1, shape (60000, 1, 28, 28), and their labels.

    The part "t10k" has the 10,000 images for tests, in the same scale.
    """
    folder = Path(os.environ.get("OPTLAB_FASHION_MNIST") or DEBIAN)
    names = [name.format(part) for name in FILES]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise SystemExit(
            f"Fashion-MNIST not found: {folder} has no {' and no '.join(missing)}. "
            "Set OPTLAB_FASHION_MNIST to the folder of the .gz files, "
            "or install Debian's package dataset-fashion-mnist."
        )
    images, labels = (idx(folder / name) for name in names)
    images = images.unsqueeze(1).to(torch.get_default_dtype())
    return (images - MEAN) / DEVIATION, labels.long()


def convnet(activation: type[nn.Module]) -> nn.Module:
    """Three convolutions, each halving the image, then a linear layer on the means."""
    layers: list[nn.Module] = []
    for inputs, outputs in [(1, 16), (16, 32), (32, 64)]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), activation()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small convolutional network.")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--optimizer", default="SGD")
    parser.add_argument("--lr", type=float, help="the highest learning rate")
    parser.add_argument("--activation", default="GELU", choices=["GELU", "ReLU"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_default_dtype(getattr(torch, args.dtype))

    (images, labels), model = fashion_mnist(), convnet(getattr(nn, args.activation))
    print(f"{len(images)} images, {sum(p.numel() for p in model.parameters())} parameters")
    lr = args.lr or RATES.get(args.optimizer, 3e-3)
    sgd = args.optimizer == "SGD"
    settings = {"momentum": 0.9, "nesterov": True} if sgd else {}
    optimizer = getattr(optim, args.optimizer)(
        model.parameters(), lr=lr, weight_decay=5e-4, **settings
    )
    scheduler = OneCycleLR(optimizer, max_lr=lr, total_steps=args.steps + 1, cycle_momentum=sgd)

    correct = []
    for step in range(args.steps):
        batch = torch.randint(len(images), (BATCH,))
        inputs, targets = images[batch], labels[batch]
        outputs = model(inputs.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        correct.append((outputs.argmax(1) == targets).float().mean().item())
        print(f"step {step} loss {loss.item()!r}", flush=True)
    last = correct[-20:]
    print(f"accuracy over the last {len(last)} batches: {sum(last) / len(last):.3f}")


if __name__ == "__main__":
    main()
