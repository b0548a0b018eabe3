"""What the benchmarks of speed compare: methods, shapes of parameters, and implementations."""

from typing import Any

import torch
from torch import nn

import optlab

#: Of a processor, for everyone.
THREADS = 2
Shapes = list[tuple[int, ...]]
#: A method's name here: the class, which torch has too, and what it is called with.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "SGD momentum": ("SGD", {"momentum": 0.9}),
    "SGD Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {}),
    "Adadelta": ("Adadelta", {}),
    "RMSprop": ("RMSprop", {}),
    "Adam": ("Adam", {}),
    "AdamW": ("AdamW", {}),
    "NAdam": ("NAdam", {}),
    "RAdam": ("RAdam", {}),
    "Adamax": ("Adamax", {}),
}
#: Bytes that a step must read and write for each element: parameter, gradient and state are read,
#: parameter and state are written.
TRAFFIC = {"SGD": 12} | dict.fromkeys(("SGD momentum", "SGD Nesterov", "Adagrad", "RMSprop"), 20)
#: All others keep two tensors of state.
TRAFFIC_OF_TWO = 28

OURS: dict[str, dict[str, Any]] = {"default": {}, "compiled": {"compile": True}}
TORCHS: dict[str, dict[str, Any]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "loop": {"foreach": False},
    "torch": {},
}


def network() -> nn.Sequential:
    """A multilayer perceptron of 26,122 parameters in 6 tensors."""
    layers = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    return nn.Sequential(*layers)


def resnet18() -> Shapes:
    """The parameters of ResNet-18 (He et al. 2016, table 1) as built for ImageNet."""

    def convolution(out: int, into: int, kernel: int) -> Shapes:
        return [(out, into, kernel, kernel), (out,), (out,)]  # with its normalization

    shapes, into = convolution(64, 3, 7), 64
    for width in (64, 128, 256, 512):
        shapes += convolution(width, into, 3) + convolution(width, width, 3)
        if into != width:
            shapes += convolution(width, into, 1)
        shapes += 2 * convolution(width, width, 3)
        into = width
    return [*shapes, (1000, 512), (1000,)]


SHAPES: dict[str, Shapes] = {
    "MLP": [tuple(p.shape) for p in network().parameters()],
    "200 tensors": [(64, 64), (64,)] * 100,
    "ResNet-18": resnet18(),
}


def parameters(shapes: Shapes, device: str) -> list[nn.Parameter]:
    """Parameters with gradients, the same for everyone who asks."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        p = nn.Parameter(torch.randn(shape, generator=generator).to(device))
        p.grad = torch.randn(shape, generator=generator).to(device)
        made.append(p)
    return made


def optimizer(method: str, implementation: str, params: Any) -> torch.optim.Optimizer:
    """The method, as one of ``OURS`` or ``TORCHS`` implements it."""
    name, settings = METHODS[method]
    if implementation in OURS:
        return getattr(optlab, name)(params, **settings, **OURS[implementation])
    return getattr(torch.optim, name)(params, **settings, **TORCHS[implementation])


def implementations(method: str, device: str) -> list[str]:
    """Ours, and those of torch's that the method and the device have."""
    found = [*OURS, "foreach", "loop"]
    try:
        optimizer(method, "fused", parameters([(2,)], device)).step()
    except (RuntimeError, TypeError):
        return found
    return [*found, "fused"]


def training_step(method: str, implementation: str, device: str) -> Any:
    """A whole step of training the network on a batch of 64, to be called."""
    torch.manual_seed(0)
    model = network().to(device)
    method_ = optimizer(method, implementation, model.parameters())
    inputs = torch.randn(64, 64, device=device)
    labels = torch.randint(10, (64,), device=device)

    def step() -> None:
        nn.functional.cross_entropy(model(inputs), labels).backward()
        method_.step()
        method_.zero_grad()

    return step
