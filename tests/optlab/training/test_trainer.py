"""The loop against loops written by hand."""

import csv
import json
import math
import signal

import pytest
import torch
from torch import nn

import optlab
from optlab.clipping import clip_grad_value_
from optlab.models import mlp
from optlab.optimizers import GaussNewton, NaturalGradient
from optlab.precision import LossScaler, Policy
from optlab.regularizers import EarlyStopping, WeightAverage, l2_penalty
from optlab.schedules import cosine
from optlab.training import Averaging, Batches, Callback, Evaluation, History, Stopping, Trainer
from tests.optlab.training.runs import LOSS, data, network, trainer


def perceptron(double=False):
    torch.manual_seed(0)
    model = mlp((64, 12, 10))
    return model.double() if double else model


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def assert_bitwise(ours, theirs):
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)


@pytest.mark.parametrize("make", [torch.optim.AdamW, optlab.AdamW, optlab.SGD])
def test_it_is_the_loop_by_hand(make):
    ours, theirs = perceptron(), perceptron()
    run = Trainer(
        ours,
        make(ours.parameters(), lr=0.01),
        LOSS,
        data()[0],
        schedule=cosine(total=20),
        clip=0.5,
        log_every=4,
    )
    history = run.run(epochs=2)
    optimizer = make(theirs.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(total=20))
    batches, losses = data()[0], []
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            loss = LOSS(theirs(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)
    assert history.column("step") == [4, 8, 12]
    assert history.column("epoch") == [0, 1, 2]
    means = [sum(losses[i : i + 4]) / 4 for i in (0, 4, 8)]
    assert history.column("loss") == pytest.approx(means, rel=1e-5)
    assert history.column("lr") == pytest.approx([0.01 * cosine(total=20)(s) for s in (4, 8, 12)])


def test_parts_of_a_batch_make_the_whole():
    found = []
    for accumulate in (1, 3):  # of 16 samples: 6, 6 and 4
        model = perceptron(double=True)
        batches, _ = data()
        batches.x = batches.x.double()
        run = Trainer(
            model,
            optlab.SGD(model.parameters(), lr=0.1),
            LOSS,
            batches,
            accumulate=accumulate,
            penalty=lambda model=model: l2_penalty(model.parameters(), 0.01),
        )
        history = run.run(steps=10)
        found.append((weights(model), torch.tensor(history.column("loss"))))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    plain = perceptron(double=True)
    decayed = optlab.SGD(plain.parameters(), lr=0.1, weight_decay=0.01)
    Trainer(plain, decayed, LOSS, batches_in_double()).run(steps=10)
    torch.testing.assert_close(found[0][0], weights(plain), rtol=1e-12, atol=1e-12)


def batches_in_double():
    batches, _ = data()
    batches.x = batches.x.double()
    return batches


def test_clipping_by_a_function():
    ours, theirs = perceptron(), perceptron()
    batches, _ = data()
    run = Trainer(
        ours,
        optlab.SGD(ours.parameters(), lr=0.1),
        LOSS,
        batches,
        clip=lambda params: clip_grad_value_(params, 1e-3),
    )
    run.run(steps=1)
    moved = (weights(ours) - weights(theirs)).abs().max().item()
    assert moved == pytest.approx(1e-4, rel=1e-2)


def test_a_schedule_waits_for_a_step_that_was_left_out():
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = nn.Parameter(torch.ones(1)), 0

        def forward(self, x):
            self.calls += 1
            # A finite loss whose gradient is not, once scaled.
            return self.weight * (1e38 if self.calls == 2 else 1.0)

    model = Overflow()
    optimizer = optlab.SGD([model.weight], lr=1.0)
    run = Trainer(
        model,
        optimizer,
        lambda outputs, _: outputs.sum(),
        data()[0],
        schedule=lambda step: 0.5**step,
        scaler=LossScaler(init_scale=1024.0),
        log_every=1,
    )
    assert run.run(steps=3).column("lr") == [0.5, 0.5, 0.25]
    assert model.weight.item() == 1 - 1.0 - 0.5


def test_half_precision_is_autocast():
    ours, theirs = perceptron(), perceptron()
    batches, _ = data()
    Trainer(
        ours, optlab.SGD(ours.parameters(), lr=0.1), LOSS, batches, precision=Policy("bf16")
    ).run(steps=3)
    optimizer = optlab.SGD(theirs.parameters(), lr=0.1)
    again = iter(data()[0])
    for _ in range(3):
        x, y = next(again)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = LOSS(theirs(x), y)
        loss.backward()
        optimizer.step()
    assert_bitwise(ours, theirs)


def closures(model, x, y, optimizer):
    def backward():
        optimizer.zero_grad()
        loss = LOSS(model(x), y)
        loss.backward()
        return loss

    return {
        "backward": backward,
        "loss": lambda: LOSS(model(x), y),
        "outputs": lambda: (model(x), y),
    }


@pytest.mark.parametrize(
    ("make", "kind", "given"),
    [
        (lambda m: optlab.Newton(m.parameters(), damping=1.0, solver="cg"), "loss", None),
        (lambda m: GaussNewton(m.parameters(), "categorical"), "outputs", None),
        (lambda m: NaturalGradient(m.parameters(), "categorical", iterations=5), "outputs", None),
        (lambda m: optlab.KFAC(m, "categorical", adaptive=True), "backward", None),
        (lambda m: torch.optim.LBFGS(m.parameters(), max_iter=3), "backward", "backward"),
    ],
    ids=["newton", "gauss-newton", "natural-gradient", "adaptive-kfac", "lbfgs"],
)
def test_methods_get_the_closures_that_they_need(make, kind, given):
    ours, theirs = perceptron(), perceptron()
    loss = None if kind == "outputs" else LOSS
    run = Trainer(ours, make(ours), loss, data()[0], closure=given, log_every=1)
    history = run.run(steps=7)
    optimizer, batches, first = make(theirs), data()[0], []
    for _ in range(2):
        for x, y in batches:
            if len(first) == 7:
                break
            first.append(LOSS(theirs(x), y).item())
            optimizer.step(closures(theirs, x, y, optimizer)[kind])
    assert_bitwise(ours, theirs)
    assert history.column("loss") == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"closure": "outputs"}, "loss must be None"),
        ({"closure": "loss", "clip": 1.0}, "clip does not go with closure='loss'"),
        ({"closure": "loss", "accumulate": 2}, "accumulate does not go"),
        ({"closure": "loss", "scaler": LossScaler()}, "scaler does not go"),
        ({"closure": "backward", "scaler": LossScaler(), "clip": 1.0}, "scaler does not go"),
        ({"closure": "backwards"}, "closure must be one of"),
        ({"clip": 0.0}, "clip must be in"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1"),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
def test_what_does_not_go_together_is_refused(settings, message):
    model = perceptron()
    with pytest.raises(ValueError, match=message):
        Trainer(model, optlab.SGD(model.parameters(), lr=0.1), LOSS, data()[0], **settings)


def test_misspelt_and_missing():
    model = perceptron()
    parts = model, optlab.SGD(model.parameters(), lr=0.1), LOSS, data()[0]
    with pytest.raises(TypeError, match="did you mean 'schedule'"):
        Trainer(*parts, shedule=None)
    run = Trainer(*parts)
    with pytest.raises(ValueError, match="steps or epochs"):
        run.run()
    with pytest.raises(ValueError, match="no evaluate"):
        run.measure()
    with pytest.raises(ValueError, match="no checkpoints"):
        run.resume()
    with pytest.raises(ValueError, match="as many samples"):
        Batches(torch.zeros(3), torch.zeros(2), data()[0].sampler)
    with pytest.raises(ValueError, match="at least one"):
        Evaluation(torch.zeros(0), torch.zeros(0), LOSS)
    with pytest.raises(ValueError, match="number of batches must be at least 1"):
        Trainer(*parts[:3], [])
    once = iter([(torch.zeros(1, 64), torch.zeros(1).long())])

    class Once:
        def __len__(self):
            return 1

        def __iter__(self):
            yield from once

    with pytest.raises(ValueError, match="gave none in an epoch"):
        Trainer(*parts[:3], Once()).run(steps=9)


def test_evaluation_is_without_gradients_and_restores_modes():
    model, _ = network()
    model[2].eval()  # frozen statistics
    seen = []

    def evaluate(model):
        seen.append((torch.is_grad_enabled(), [m.training for m in model.modules()]))
        return {"figure": float(len(seen))}

    run = Trainer(
        model,
        optlab.SGD(model.parameters(), lr=0.1),
        LOSS,
        data()[0],
        evaluate=evaluate,
        evaluate_every=4,
    )
    history = run.run(steps=9)
    assert all(not enabled and not any(modes) for enabled, modes in seen)
    assert model.training and not model[2].training and model[4].training
    assert history.column("step", where="figure") == [4, 8, 9]


def test_figures_of_an_evaluation_do_not_depend_on_the_batch():
    model = perceptron()
    _, (x, y) = data()
    found = [Evaluation(x, y, LOSS, batch)(model) for batch in (7, 1000)]
    assert found[0] == pytest.approx(found[1])
    assert found[1]["test_loss"] == pytest.approx(LOSS(model(x), y).item())
    right = (model(x).argmax(1) == y).double().mean().item()
    assert found[1]["test_accuracy"] == pytest.approx(right)


def test_early_stopping_ends_the_run():
    figures = iter([3.0, 2.0, 2.5, 2.5, 1.0])
    run = trainer(
        evaluate=lambda _: {"test_loss": next(figures)},
        callbacks=[Stopping(EarlyStopping(patience=2))],
    )
    history = run.run(steps=100)
    assert run.step == 20 and "not improved in 2" in run.stopped
    assert history.column("test_loss") == [3.0, 2.0, 2.5, 2.5]
    run.run(steps=100)
    assert run.step == 20  # it has ended
    with pytest.raises(ValueError, match="did you mean 'test_loss'"):
        trainer(callbacks=[Stopping(EarlyStopping(), "tst_loss")]).run(steps=5)


def test_averages_are_evaluated_beside_the_weights():
    model, points = perceptron(), []
    average = WeightAverage(model)
    _, test = data()

    class Watch(Callback):
        def on_step(self, trainer):
            if trainer.step % 2 == 0:
                points.append(weights(model))

    run = Trainer(
        model,
        optlab.SGD(model.parameters(), lr=0.5),
        LOSS,
        data()[0],
        evaluate=Evaluation(*test, LOSS),
        callbacks=[Averaging(average, every=2), Watch()],
    )
    history = run.run(epochs=1)
    assert average.updates == 3
    after = weights(model)
    nn.utils.vector_to_parameters(torch.stack(points).mean(0), model.parameters())
    expected = Evaluation(*test, LOSS)(model)["test_loss"]
    assert history.column("average_test_loss") == pytest.approx([expected], rel=1e-5)
    assert history.column("test_loss") != pytest.approx([expected], rel=1e-5)
    assert not torch.equal(after, weights(model))


class Root(nn.Module):
    """Its derivative is infinite at zero, where its value is not."""

    def forward(self, x):
        return (0 * x).abs().sqrt() + x


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: nn.init.constant_(m[1].weight, torch.inf), r"the weight of layer 1 \(Linear\)"),
        (lambda m: m.__setitem__(2, Logarithm()), r"the output of layer 2 \(Logarithm\)"),
        (lambda m: m.__setitem__(2, Root()), r"step 2 is nan .*the weight of layer 1 \(Linear\)"),
    ],
    ids=["weight", "output", "gradient"],
)
def test_a_loss_that_is_not_finite_is_traced(spoil, message):
    model = perceptron()
    with torch.no_grad():
        spoil(model)
    run = Trainer(model, optlab.SGD(model.parameters(), lr=0.1), LOSS, data()[0])
    with pytest.raises(FloatingPointError, match=message) as found:
        run.run(steps=5)
    assert "with loss scale 1" in str(found.value)


class Logarithm(nn.Module):
    def forward(self, x):
        return (-x.abs()).log()


def test_not_finite_steps_scales_and_inputs():
    model = perceptron()
    batches, _ = data()
    parts = model, optlab.SGD(model.parameters(), lr=0.1)
    calls = iter([1.0, 1.0, math.inf])
    before = []

    class Watch(Callback):
        def on_step(self, trainer):
            before.append(weights(model))

    scaled = Trainer(
        *parts,
        lambda o, y: LOSS(o, y) * next(calls),
        batches,
        scaler=LossScaler(init_scale=64.0),
        callbacks=[Watch()],
    )
    with pytest.raises(FloatingPointError, match=r"step 3 is inf .*loss scale 64.*see the loss"):
        scaled.run(steps=5)
    assert torch.equal(before[-1], weights(model))  # the step was not made
    batches.x = torch.full_like(batches.x, math.nan)
    with pytest.raises(FloatingPointError, match="the batch itself"):
        Trainer(*parts, LOSS, batches).run(steps=1)


def test_losses_read_late_name_their_step():
    model = perceptron()
    batches, _ = data()
    calls = iter([1.0, 1.0, math.nan, *[1.0] * 9])
    run = Trainer(
        model,
        optlab.SGD(model.parameters(), lr=0.1),
        lambda o, y: LOSS(o, y) * next(calls),
        batches,
        read_every=5,
    )
    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan \(after step 4"):
        run.run(steps=9)


def test_an_optimizers_error_is_traced_too():
    model = perceptron()
    nn.init.constant_(model[3].weight, math.nan)
    run = Trainer(model, GaussNewton(model.parameters(), "categorical"), None, data()[0])
    with pytest.raises(FloatingPointError, match=r"the loss is nan .*the weight of layer 3"):
        run.run(steps=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_after_the_step(number):
    class Send(Callback):
        def on_step(self, trainer):
            if trainer.step == 7:
                signal.raise_signal(number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = trainer(callbacks=[Send()])
    run.run(steps=20)
    assert run.step == 7 and run.interrupted == signal.Signals(number).name and not run.stopped
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    run.run(steps=20)
    assert run.step == 20 and not run.interrupted


def test_the_second_ctrl_c_is_obeyed():
    class Send(Callback):
        def on_step(self, trainer):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[Send()]).run(steps=3)


def test_a_history_is_a_table(tmp_path):
    history = History()
    history.add(1, {"loss": 0.1})
    history.add(2, {"loss": 0.2, "test_loss": 0.3})
    history.write(tmp_path / "h.csv")
    with (tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "1", "loss": "0.1", "test_loss": ""},
        {"step": "2", "loss": "0.2", "test_loss": "0.3"},
    ]
    history.write(tmp_path / "h.jsonl")
    lines = (tmp_path / "h.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.rows
    with pytest.raises(ValueError, match=r"csv or .jsonl"):
        history.write(tmp_path / "h.txt")
    with pytest.raises(ValueError, match="did you mean 'loss'"):
        history.column("los")
    again = History()
    again.load_state_dict(history.state_dict())
    assert again.rows == history.rows and len(again) == 2


def test_progress_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr("optlab.training.progress.INTERVAL", 0.0)
    trainer(progress=True, log_every=3).run(steps=6)
    shown = capsys.readouterr().err
    for part in ("6/6", "loss=", "lr=0.0094", "samples/s="):
        assert part in shown
    trainer(progress=None).run(steps=2)  # nothing without a terminal
    assert capsys.readouterr().err == ""
