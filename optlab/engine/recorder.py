"""A recorder: a rule's program kept from step to step, and its numbers computed anew."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.fx

from optlab.engine.tape import Program, Recording, Term, play


class Recorder:
    """Records a rule once, and from then on only computes its numbers.

    The numbers are traced as functions of the hyperparameters.  A rule that branches on these, or
    asks a library what it does not know of them, is recorded anew each time.

    Args:
        rule: takes ``(theta, g, *state)`` and hyperparameters by keyword.
        state: for each state variable, whether it is a tensor.
    """

    def __init__(self, rule: Callable[..., Sequence[Any]], state: Sequence[bool]) -> None:
        self.rule = rule
        self.state = state
        self.program: Program | None = None
        self._function: Callable[..., Any] | None = None
        self._last: tuple[Any, Recording] | None = None

    def __call__(self, numbers: Sequence[float], settings: dict[str, float]) -> Recording:
        """The recording for these state variables that are numbers and these hyperparameters."""
        values = [*numbers, *settings.values()]
        if self._last is not None and self._last[0] == values:
            return self._last[1]
        if self.program is None:
            self._trace(values, settings)
        recording: Recording | None = None
        positive: Sequence[float] = ()
        if self._function is not None and self.program is not None:
            *results, positive = self._function(*values)
            recording = Recording(self.program, *results)
        if recording is None or (positive and min(positive) <= 0):
            recording, _ = self._record(iter(numbers), settings)
            if self.program is not None and self.program.same(recording.program):
                recording = recording._replace(program=self.program)
        self.program = recording.program
        self._last = values, recording
        return recording

    def _record(
        self, numbers: Iterator[Any], settings: dict[str, Any]
    ) -> tuple[Recording, Sequence[Any]]:
        operands = [None if tensor else next(numbers) for tensor in self.state]
        return play(functools.partial(self.rule, **settings), None, None, *operands)

    def _trace(self, values: Sequence[float], settings: dict[str, float]) -> None:
        graph = torch.fx.Graph()
        tracer = _Tracer(graph)

        def number(name: str) -> torch.fx.Proxy:
            return torch.fx.Proxy(graph.placeholder(name), tracer)

        state = [number(f"state{i}") for i, tensor in enumerate(self.state) if not tensor]
        try:
            traced = {name: number(name) for name in settings}
            (program, *results), positive = self._record(iter(state), traced)
            results.append(positive)
            graph.output([[getattr(result, "node", result) for result in part] for part in results])
            function = torch.fx.GraphModule({}, graph).forward
            function(*values)
        except Exception:  # whatever a library raises when it is given no number
            return
        self.program, self._function = program, function


class _Tracer(torch.fx.proxy.GraphAppendingTracer):
    """Traces numbers alone: where one meets a term, the term takes over."""

    def create_proxy(self, kind: str, target: Any, args: Any, *rest: Any, **options: Any) -> Any:
        if any(type(arg) is Term for arg in args):
            return NotImplemented
        return super().create_proxy(kind, target, args, *rest, **options)
