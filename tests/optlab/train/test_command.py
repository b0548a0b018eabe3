"""The command in one process: what it reads, refuses, trains, leaves, and takes up again."""

import json
import signal

import pytest
import torch
import yaml
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from optlab import data, models
from optlab.schedules import cosine, warmup
from optlab.train.choices import OPTIMIZERS
from optlab.train.command import main
from optlab.train.estimate import estimate
from optlab.train.folder import Metrics
from optlab.train.parts import data_of, model_of, optimizer_of
from optlab.train.reading import pairs_of, read, ready, written
from optlab.training.checkpoints import read as read_checkpoint

SMALL = ["model.widths=[64,8,10]", "epochs=null", "steps=6", "precision=fp64", "log_every=1"]


def run(folder, *changes, name="digits-mlp"):
    return main([name, f"folder={folder}", *changes])


def weights(folder):
    *_, last = sorted((folder / "checkpoints").glob("*.pt"))
    return read_checkpoint(last)["parts"]["model"]


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["optimzer=sgd"], "optimzer is no key: did you mean 'optimizer'?"),
        (["optimizer.momentum=0.9"], "optimizer.momentum is no key: Known: lr, betas"),
        (["optimizer=adamm"], "optimizer must be one of these, not 'adamm': did you mean 'adam"),
        (["regularizers.dropuot=0.5"], "regularizers.dropuot is no key: did you mean 'dropout'?"),
        (["regularizers.average.evry=2"], "regularizers.average.evry is no key: did you mean 'ev"),
        (["regularizers.dropout=1"], r"regularizers.dropout must be in \[0, 1\), got 1"),
        (["clip.norm=0"], r"clip.norm must be in \(0, inf\), got 0"),
        (["clip.norm=1", "clip.value=1"], "clip must be one of its keys, got norm and value"),
        (["batch=0"], "batch must be at least 1, got 0"),
        (["batch=6.5"], "batch must be a valid integer, got 6.5"),
        (["parallel=ddq"], "parallel must be 'none', 'own', 'ddp' or 'fsdp', got 'ddq'"),
        (["schedule=multistep"], "schedule.milestones is missing"),
        (["steps=5"], "one of epochs and steps must be given, and the other must be null"),
        (["compress=fp16", "parallel=ddp"], "compress needs parallel=own, and parallel is ddp"),
        (["scaling={rule: linear}"], "scaling.reference is missing"),
        (["scaling={rule: linear, reference: 8, of: 2}"], "scaling.of is no key: Known: rule, ref"),
        (["batch=null"], "batch must be a valid integer, got None"),
        (["batch"], "a change must be key=value, got 'batch'"),
        (["batch=[1"], "batch=.* is no YAML"),
    ],
)
def test_what_is_not_allowed_is_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read("digits-mlp", changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["optimizer.lr=-1"], "optimizer.lr must be in [0, inf), got -1"),
        (["schedule.end=2"], "schedule.end must be in [0, 1], got 2"),
        (["model.widths=[64,0,10]"], "model.widths[1] must be at least 1, got 0"),
        (["model.widths=[63,10]"], "model: mlp does not fit digits, whose examples are (1, 8, 8)"),
        (["data={name: mnist1d, train: 0}"], "data.train must be"),
        (["model=rnn", "data=mnist1d", "regularizers.dropout=0.5"], "regularizers.dropout has no"),
        (["optimizer=newton", "clip.norm=1"], "clip does not go with closure='loss'"),
        (["data={name: python_source, context: 8, size: 800}"], "standardize: only real numbers"),
        pytest.param(
            ["device=cuda"],
            "device is cuda, but torch",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_does_not_fit_ends_in_a_sentence(changes, message, tmp_path, capsys):
    assert run(tmp_path, *changes) == 1
    assert capsys.readouterr().err.startswith(f"optlab.train: {message}")
    assert not [*tmp_path.glob("checkpoints/*.pt")]


def test_data_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", str(tmp_path / "nothing"))
    assert run(tmp_path, name="fashion-convnet") == 1
    assert capsys.readouterr().err.startswith("optlab.train: data: ")


def test_unknown_configurations_are_answered_with_the_nearest(capsys):
    assert main(["digit-mlp"]) == 1
    assert "did you mean 'digits-mlp'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ready())
def test_ready_configurations_are_read_again_as_they_were_written(name, tmp_path):
    chosen, path = read(name), tmp_path / "own.yaml"
    path.write_text(written(chosen))
    assert read(str(path)) == chosen
    given = yaml.safe_load(written(chosen))
    assert given["folder"] == f"runs/{name}" and given["seed"] == 0
    assert len(pairs_of(chosen)) > 30


def test_a_run_is_the_loop_that_one_would_write(tmp_path):
    changes = ["clip.norm=0.5", "regularizers.label_smoothing=0.1", "regularizers.l2=0.01"]
    assert run(tmp_path, *SMALL, *changes, "schedule.warmup=2", "accumulate=3") == 0
    digits = data.digits().standardized()
    torch.manual_seed(0)
    model = models.mlp([64, 8, 10]).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = LambdaLR(optimizer, warmup(2, then=cosine(total=4)))
    losses = []
    for indices, _ in zip(data.Sampler(len(digits.x), 64, seed=0), range(6), strict=False):
        x, y = digits.x[indices].double(), digits.y[indices]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y, label_smoothing=0.1)
        loss = loss + 0.005 * sum(p.square().sum() for p in model.parameters())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    torch.testing.assert_close(weights(tmp_path), model.state_dict(), rtol=0, atol=1e-12)
    assert [row["loss"] for row in metrics(tmp_path)] == pytest.approx(losses, rel=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name, tmp_path):
    rate = {"kfac": 0.1, "newton": 0.1, "adadelta": 10.0, "lars": 10.0, "sgd": 0.1}.get(name, 0.01)
    changes = [f"optimizer={{name: {name}, lr: {rate}}}", "schedule=constant", "batch=1500"]
    if name == "newton":
        changes += ["optimizer.solver=cg", "optimizer.globalization=line_search"]
    assert run(tmp_path, *SMALL, *changes) == 0
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert len(losses) == 6 and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        ["data=mnist1d", "model=rnn", "clip.value=0.1"],
        ["model={name: convnet, width: 2}", "regularizers.dropout=0.2", "precision=bf16"],
        ["model={name: resnet, depth: 8, width: 2}", "clip.units=0.1", "precision=fp16"],
        ["model={name: plain, depth: 3}", "regularizers.average.decay=0.9"],
        ["model={name: autoencoder, widths: [64, 8, 4]}", "likelihood=bernoulli", "optimizer=kfac"],
        [
            *("standardize=false", "data={name: python_source, context: 8, size: 8000}"),
            *("model={name: gpt, layers: 1, heads: 1, width: 8}", "optimizer=kfac"),
        ],
    ],
    ids=lambda changes: changes[0].partition("=")[2],
)
def test_every_model_has_a_task(changes, tmp_path):
    size = ["epochs=null", "steps=3", "log_every=1"]
    assert run(tmp_path, *size, *changes) == 0
    row = metrics(tmp_path)[-1]
    assert row["step"] == 3 and 0 < row["test_loss"] < 100
    averaged = "regularizers.average.decay=0.9" in changes
    assert ("average_test_loss" in row) == averaged


def test_dropout_keeps_the_names_of_weights():
    chosen = read("digits-mlp", ["regularizers.dropout=0.5"])
    model = model_of(chosen, data_of(chosen))
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in models.mlp().named_parameters()
    ]
    x = torch.ones(1000, 64)
    hidden = model[:3](x)
    dropped = (hidden == 0).double().mean() - (model.eval()[:3](x) == 0).double().mean()
    assert 0.15 < dropped < 0.35  # of the half or so that the rectifier has left


def test_patience_ends_a_run(tmp_path, capsys):
    changes = ["steps=100", "evaluate_every=1", "regularizers.patience=3", "optimizer.lr=0"]
    assert run(tmp_path, *SMALL, *changes) == 0
    assert "test_loss has not improved in 3 evaluations" in capsys.readouterr().out
    assert len(metrics(tmp_path)) == 4


def test_a_folder_holds_the_run(tmp_path, capsys):
    assert run(tmp_path, *SMALL) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("configuration.yaml", "versions.jsonl", "metrics.jsonl", "plot.png", "checkpoints"),
    }
    assert read(str(tmp_path / "configuration.yaml")) == read(
        "digits-mlp", [*SMALL, f"folder={tmp_path}"]
    )
    (start,) = map(json.loads, (tmp_path / "versions.jsonl").read_text().splitlines())
    assert start["torch"] == torch.__version__ and start["ranks"] == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert run(tmp_path, *SMALL, "optimizer.lr=1", "seed=1") == 1
    assert "another run: optimizer.lr is 1, not 0.002; choose another" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}


def test_ctrl_c_leaves_a_checkpoint_from_which_the_run_goes_on(tmp_path, capsys, monkeypatch):
    changes = [*SMALL, "steps=12", "regularizers.average.decay=0.5", "regularizers.dropout=0.1"]
    assert run(tmp_path / "whole", *changes) == 0

    def interrupted(self, trainer):
        if trainer.step == 5:
            signal.raise_signal(signal.SIGINT)
        return own(self, trainer)

    own = Metrics.on_step
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "on_step", interrupted)
        assert run(tmp_path / "cut", *changes) == 128 + signal.SIGINT
    assert "SIGINT: step 5" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == [
        "step-000000005.pt"
    ]
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 0}\n')  # a run that was killed may have been further
    assert run(tmp_path / "cut", *changes) == 0
    torch.testing.assert_close(
        weights(tmp_path / "cut"), weights(tmp_path / "whole"), rtol=0, atol=0
    )
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("parallel", ["own", "ddp", "fsdp"])
def test_one_process_needs_no_torchrun(parallel, tmp_path):
    for name in ("none", parallel):
        assert run(tmp_path / name, *SMALL, f"parallel={name}") == 0
    torch.testing.assert_close(
        weights(tmp_path / parallel), weights(tmp_path / "none"), rtol=0, atol=1e-14
    )


def test_processes_without_an_engine_are_refused(monkeypatch, capsys):
    for name, value in dict(RANK="0", WORLD_SIZE="2", MASTER_ADDR="x", MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    assert main(["digits-mlp"]) == 1
    assert "rank 0: parallel is none, but 2 processes were started" in capsys.readouterr().err
    monkeypatch.delenv("MASTER_ADDR")
    assert main(["digits-mlp"]) == 1
    assert "RANK is set but not MASTER_ADDR" in capsys.readouterr().err


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4.0), ("square_root", 2.0)])
def test_the_rate_is_scaled_with_the_batch(rule, factor, capsys):
    changes = [*SMALL, "batch=32", f"scaling={{rule: {rule}, reference: 8}}"]
    chosen = read("digits-mlp", changes)
    optimizer = optimizer_of(chosen, model_of(chosen, data_of(chosen)))
    assert optimizer.param_groups[0]["lr"] == factor * 0.002
    assert main(["digits-mlp", *changes, "--dry-run"]) == 0
    assert f"{factor * 0.002:10.4g}, scaled from 8 samples" in capsys.readouterr().out


def test_memory_is_counted(capsys):
    def found(*changes):
        chosen = read("digits-mlp", [*SMALL, *changes])
        return estimate(chosen, data_of(chosen))

    count = 64 * 8 + 8 + 8 * 10 + 10
    adamw = found("batch=32")
    assert adamw[:3] == (count, 8 * count, 8 * count)
    assert adamw.moments == 2 * 8 * count + 4 * 4  # and the step, for each of four tensors
    assert found("optimizer=sgd").moments == 0
    assert found("optimizer={name: sgd, momentum: 0.9}").moments == 8 * count
    assert found("optimizer=newton").moments == 0
    # The inputs, what the rectifier leaves, the logarithms of probabilities, and the target.
    each = 8 * (64 + 8 + 10 + 1)
    assert found("batch=96").activations - adamw.activations == 64 * each
    assert found("batch=96", "accumulate=3").activations == adamw.activations
    assert main(["digits-mlp", *SMALL, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"parameters  {count:10,}" in shown and "steps                6, 24 in an epoch" in shown
    assert yaml.safe_load(shown.partition("\nsteps")[0])["optimizer"]["lr"] == 0.002
