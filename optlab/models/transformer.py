"""A language model: a transformer that foretells the next byte."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optlab.errors import check_count, check_flag, strict_keywords

#: The setting of a model with 10,942,464 parameters, ``GPT(**TEN_MILLION)``.
TEN_MILLION: dict[str, Any] = dict(context=256, layers=6, heads=6, width=384)


class Attention(nn.Module):
    """Each position takes from itself and those before it (Vaswani et al. 2017, section 3.2).

    Args:
        width: of each position; a multiple of ``heads``.
        heads: that attend apart from one another.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(samples, length, width)``."""
        q, k, v = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention, then a perceptron at each position, both added to what they normalize first.

    Args:
        width: of each position.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = Attention(width, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(samples, length, width)``."""
        first, second = self.norms
        x = x + self.attention(first(x))
        out: Tensor = x + self.perceptron(second(x))
        return out


@strict_keywords
class GPT(nn.Module):
    """A transformer's decoder with its normalizations in front (Radford et al. 2019, section 2.3).

    875,264 parameters by default, and ``vocabulary * width`` fewer where weights are tied.  All
    weights are linear layers', embeddings' and normalizations'.  They begin with deviation 0.02,
    those that lead into a sum with that over ``sqrt(2 layers)``.  Methods that differentiate twice
    need attention in plain operations: ``with sdpa_kernel(SDPBackend.MATH)``,
    which are in ``torch.nn.attention``.

    Args:
        vocabulary: how many tokens there are; 256 for bytes.
        context: the longest sequence.
        layers: how many blocks there are.
        heads: of each block's attention.
        width: of each position, a multiple of ``heads``.
        tied: the outputs have the weights of the tokens' embedding (Press and Wolf 2017).

    >>> GPT()(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 256])
    """

    def __init__(
        self,
        vocabulary: int = 256,
        context: int = 128,
        layers: int = 4,
        heads: int = 4,
        width: int = 128,
        tied: bool = False,
    ) -> None:
        check_count("vocabulary", vocabulary)
        check_count("context", context)
        check_count("layers", layers)
        check_count("heads", heads)
        check_count("width", width)
        check_flag("tied", tied)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads={heads}, got {width}")
        super().__init__()
        self.context = context
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.output.weight = self.tokens.weight
        self._initialize(0.02 / (2 * layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of each position's next token, ``(samples, length, vocabulary)``.

        Args:
            tokens: whole numbers of shape ``(samples, length)``.

        Raises:
            ValueError: they are of another shape, or more than the context holds.
        """
        if tokens.dim() != 2 or tokens.shape[1] > self.context:
            raise ValueError(
                f"tokens must be (samples, length) with a length of at most {self.context}, "
                f"got {tuple(tokens.shape)}"
            )
        # For every sample, as K-FAC counts them.
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        x = self.blocks(self.tokens(tokens) + self.positions(places))
        logits: Tensor = self.output(self.norm(x))
        return logits

    def _initialize(self, into_sum: float) -> None:
        for name, p in self.named_parameters():
            if p.dim() > 1:
                last = name.endswith(("attention.out.weight", "perceptron.2.weight"))
                nn.init.normal_(p, std=into_sum if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
