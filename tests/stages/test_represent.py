"""The representation: repeatable, resumable, and nothing lost on the way."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ltrec import artifacts, pipeline, tracking
from ltrec.artifacts import Layout
from ltrec.compute.distributed import World
from ltrec.config.represent import RepresentSettings
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.models.preprocessing import Preprocessing
from ltrec.stages import featurize, recording, represent
from ltrec.training import loop as training
from ltrec.training.mixing import PastedFromOthers
from ltrec.training.resume import ResumeFolder
from tests.stages.conftest import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltrec.config.params import Params

    Build = Callable[..., Params]

LAYOUT = Layout()
pytestmark = [
    pytest.mark.usefixtures("prepared"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a single core
]


def written() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (LAYOUT.model, LAYOUT.history)}


def forget() -> None:
    """What `featurize` does when DVC has the network."""
    shutil.rmtree(".ltrec/resume")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Ctrl-C when so many epochs are saved."""
    save, left = ResumeFolder.save, [epochs]

    def save_and_stop(self: ResumeFolder, state: dict[str, Any]) -> None:
        save(self, state)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResumeFolder, "save", save_and_stop)


def interrupted(monkeypatch: pytest.MonkeyPatch, settings: Params, *, epochs: int) -> None:
    """Run the stage until Ctrl-C comes after so many epochs."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, epochs)
        with pytest.raises(KeyboardInterrupt):
            represent.run(settings)


def test_a_network_and_its_history(params: Build) -> None:
    represent.run(params())
    trained = network.load(LAYOUT.model)
    assert trained(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape == (2, 3)
    assert trained.geometry == Geometry(size=8, resize=8)
    rows = artifacts.read_csv(LAYOUT.history)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    # 28 images in batches of 8 are 3 updates an epoch: the cosine stands at 0, 3/12, 6/12, 9/12.
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.05, 0.0426777, 0.025, 0.0073223], abs=1e-7)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["val"]) > 1 / 3


def test_the_history_is_of_the_network_that_was_written(params: Build) -> None:
    represent.run(params())
    from ltrec.data.image_lists import read_list
    from ltrec.data.images.decoding import decode_rgb, square
    from tests.scores import balanced_accuracy

    val, trained = read_list(LAYOUT.split_list("val"), 3), network.load(LAYOUT.model)
    pixels = np.stack([square(decode_rgb(Path("data", path)), trained.geometry) for path in val.paths])
    with torch.inference_mode():
        reached = balanced_accuracy(trained(torch.from_numpy(pixels)), torch.from_numpy(val.labels))
    assert float(artifacts.read_csv(LAYOUT.history)[-1]["val"]) == pytest.approx(reached)


@pytest.mark.slow
def test_the_same_bytes_twice_with_workers_or_without_and_others_for_another_seed(params: Build) -> None:
    represent.run(params())
    first = written()
    forget()
    represent.run(params(represent={"workers": 2}))
    assert written() == first
    represent.run(params().model_copy(update={"seed": 1}))
    assert written()["model.safetensors"] != first["model.safetensors"]


@pytest.mark.parametrize("sampler", ["instance_balanced", "class_balanced", "progressively_balanced"])
@pytest.mark.parametrize("after", [1, 3])
def test_interrupted_and_run_again_it_ends_with_the_same_bytes(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: int, sampler: str
) -> None:
    settings = params(represent={"sampler": {"name": sampler}})
    represent.run(settings)
    expected = written()
    shutil.rmtree(LAYOUT.model.parent)
    forget()
    interrupted(monkeypatch, settings, epochs=after)
    assert not LAYOUT.model.exists()
    represent.run(settings)
    assert f"going on after epoch {after}/4" in capsys.readouterr().err
    assert written() == expected


EVERYTHING: dict[str, Any] = {
    "sampler": {"name": "progressively_balanced"},
    "freeze": {"by": "name", "modules": ["conv1", "bn1"]},
    "clip_norm": 1.0,
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "mix": {"name": "cmo", "foreground": {"name": "square_root"}, "plain_epochs": 1},
    "ema": {"decay": 0.9},
}


@pytest.mark.parametrize(
    "more",
    [
        {
            "optimizer": {"name": "adamw", "lr": 0.01, "head_lr": 0.02},
            "schedule": {"name": "step", "milestones": [2], "warmup_epochs": 1},
        },
        {
            "optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True},
            "schedule": {"name": "cosine", "warmup_epochs": 1},
        },
        {"precision": "fp16", "optimizer": {"name": "sgd", "lr": 0.05}},
        {
            "head": {"name": "cosine", "scale": 16.0},
            "loss": {"name": "ldam", "class_weights": {"start": 0.5}},
            "sampler": {"name": "instance_balanced"},
        },
        {
            "optimizer": {"name": "adamw", "lr": 0.01, "layer_decay": 0.5, "decay_all": False},
            "freeze": {"by": "depth", "trained": 1, "unfreeze_every": 1},
        },
        {
            "optimizer": {"name": "sgd", "lr": 0.05, "layer_decay": 0.5},
            "freeze": {"by": "depth", "trained": 0, "unfreeze_every": 2},
        },
    ],
    ids=["adamw, step", "sgd, cosine", "fp16", "ldam-drw", "adamw, unfreezing", "sgd, unfreezing"],
)
@pytest.mark.parametrize("after", [1, 3])
def test_interrupted_with_every_option_it_ends_with_the_same_bytes(
    params: Build, monkeypatch: pytest.MonkeyPatch, after: int, more: dict[str, Any]
) -> None:
    settings = params(represent=EVERYTHING | more, rebalance={key: {"method": "joint"} for key in METHODS})
    represent.run(settings)
    expected = written()
    shutil.rmtree(LAYOUT.model.parent)
    forget()
    interrupted(monkeypatch, settings, epochs=after)
    represent.run(settings)
    assert written() == expected


def test_every_option_reaches_the_training(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    real = training.train

    def seen(model: Any, loss: Any, batches: Any, optimizer: Any, schedule: Any, **options: Any) -> None:
        given.update(options, loss=loss, optimizer=optimizer, model=model, rate=optimizer.param_groups[0]["lr"])
        real(model, loss, batches, optimizer, schedule, **options)

    monkeypatch.setattr(training, "train", seen)
    adamw = {"name": "adamw", "lr": 0.01, "head_lr": 0.02, "betas": (0.8, 0.9)}
    schedule = {"name": "step", "milestones": [2], "gamma": 0.1, "warmup_epochs": 1}
    represent.run(params(represent=EVERYTHING | {"optimizer": adamw, "schedule": schedule}))
    assert given["clip_norm"] == 1.0
    assert isinstance(given["mix"], PastedFromOthers)
    # Targets (0.95, 0.05) and logits (1, 0): 0.95·0.313262 + 0.05·1.313262.
    assert float(given["loss"](torch.tensor([[1.0, 0.0]]), torch.tensor([0]))) == pytest.approx(0.363262, abs=1e-6)
    assert isinstance(given["optimizer"], torch.optim.AdamW)
    assert [group["initial_lr"] for group in given["optimizer"].param_groups] == [0.01, 0.02]
    assert given["optimizer"].defaults["betas"] == (0.8, 0.9)
    # 3 updates an epoch: the warm-up begins with a third, and the file shows each epoch's first rate.
    assert given["rate"] == pytest.approx(0.01 / 3)
    rates = [float(row["lr"]) for row in artifacts.read_csv(LAYOUT.history)]
    assert rates == pytest.approx([0.01 / 3, 0.01, 0.001, 0.001])
    # What is kept, and validated, is the average.
    kept = network.load(LAYOUT.model).state_dict()
    averaged, last = given["average"].module.state_dict(), given["model"].state_dict()
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in kept.items())
    assert not torch.equal(kept["head.weight"], last["head.weight"])


def test_what_is_frozen_is_as_the_seed_or_the_file_gave_it(params: Build) -> None:
    frozen = {"by": "depth", "trained": 1}
    represent.run(params(represent={"freeze": frozen}))
    first = network.load(LAYOUT.model).backbone.state_dict()
    torch.save(first, "weights.pth")
    backbone = {"name": "cifar_resnet8", "weights": "weights.pth"}
    represent.run(params(represent={"backbone": backbone, "freeze": frozen, "epochs": 1}))
    second = network.load(LAYOUT.model).backbone.state_dict()
    for name, tensor in second.items():
        assert torch.equal(tensor, first[name]) is not name.startswith("layer3."), name
    assert int(second["layer1.0.bn1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.05}, {"name": "adamw", "weight_decay": 0.5}])
def test_parts_begin_to_train_one_after_another(
    params: Build, monkeypatch: pytest.MonkeyPatch, optimizer: dict[str, Any]
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    real = ResumeFolder.save

    def save(self: ResumeFolder, state: dict[str, Any]) -> None:
        states.append({name: tensor.clone() for name, tensor in state["network"].items()})
        real(self, state)

    monkeypatch.setattr(ResumeFolder, "save", save)
    freeze = {"by": "depth", "trained": 1, "unfreeze_every": 1}
    represent.run(params(represent={"freeze": freeze, "optimizer": optimizer, "ema": {"decay": 0.9}}))
    # Weight decay and batch norm's statistics leave alone what is still frozen.
    changed = [
        {name.split(".")[1] for name, tensor in after.items() if not torch.equal(tensor, before[name])} - {"weight"}
        for before, after in itertools.pairwise(states)
    ]
    begun = {"layer3", "layer2", "bias"}
    assert changed == [begun, begun | {"layer1"}, begun | {"layer1", "conv1", "bn1"}]
    kept = network.load(LAYOUT.model).state_dict()
    assert torch.equal(states[0]["backbone.conv1.weight"], states[2]["backbone.conv1.weight"])
    assert not torch.equal(kept["backbone.conv1.weight"], states[0]["backbone.conv1.weight"]), "the average moved too"


def test_unfreezing_in_several_processes_is_one_line(params: Build) -> None:
    freeze = params(represent={"freeze": {"by": "depth", "trained": 1, "unfreeze_every": 1}})
    built = network.build(
        CifarResNetBackbone(name="cifar_resnet8"), Geometry(size=8, resize=8), (0.5,) * 3, (0.5,) * 3, 3
    )
    with pytest.raises(UserError, match=r"^params\.yaml: represent\.freeze\.unfreeze_every: not with 2 processes"):
        represent._freezing(freeze.represent, built, World(rank=0, size=2))


def test_another_file_of_weights_is_another_training(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = params(represent={"backbone": {"name": "cifar_resnet8", "weights": "weights.pth"}})
    with pytest.raises(UserError, match=r"represent\.backbone\.weights: no such file, got weights\.pth"):
        represent.run(settings)
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(settings.represent.backbone.build(8, pretrained=False).state_dict(), "weights.pth")
        interrupted(monkeypatch, settings, epochs=2)
    assert "going on" not in capsys.readouterr().err
    represent.run(settings)
    assert "going on after epoch 2/4" in capsys.readouterr().err
    _, header = artifacts.load_tensors(LAYOUT.model)
    assert header["weights_sha256"] == hashlib.sha256(Path("weights.pth").read_bytes()).hexdigest()


def test_parts_that_do_not_exist_are_one_line(params: Build) -> None:
    with pytest.raises(
        UserError, match=r"represent\.freeze\.modules: 'layer4' matches nothing in the backbone; at its"
    ):
        represent.run(params(represent={"freeze": {"by": "name", "modules": ["layer4"]}}))


def test_a_schedule_longer_than_the_training_is_refused() -> None:
    small: dict[str, Any] = {"backbone": {"name": "cifar_resnet8"}, "epochs": 4}
    for schedule in ({"name": "step", "milestones": [2, 4]}, {"name": "cosine", "warmup_epochs": 4}):
        with pytest.raises(ValidationError, match=r"must be below epochs \(4\)"):
            RepresentSettings.model_validate(small | {"schedule": schedule})


def no_training(*_: object, epochs: range, **_named: object) -> None:
    assert not epochs, "nothing is left to train"


@pytest.mark.parametrize("where", ["after the last epoch", "while MLflow is told", "while DVC hashes"])
def test_a_finished_training_is_taken_until_its_network_is_taken_over(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    represent.run(params())
    expected = written()
    if where != "while DVC hashes":
        forget()
        with monkeypatch.context() as patch:
            if where == "while MLflow is told":
                patch.setattr(recording, "stage_run", killed_at_the_end)
            else:
                interrupt_after(patch, 4)
            with pytest.raises(KeyboardInterrupt):
                represent.run(params())
    shutil.rmtree(LAYOUT.model.parent)  # as DVC does before it runs a stage again
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", no_training)
        represent.run(params(represent={"workers": 1}))
    assert "represent: this training is already finished; taking its result\n" in capsys.readouterr().err
    assert written() == expected

    featurize.run(params())
    assert not list(Path(".ltrec/resume/represent").iterdir())
    capsys.readouterr()
    represent.run(params())
    assert "already finished" not in capsys.readouterr().err


@contextlib.contextmanager
def killed_at_the_end(*_: object, **_named: object) -> Iterator[tracking.Run]:
    yield tracking.Run()
    raise KeyboardInterrupt


def test_features_of_one_network_leave_the_training_of_another(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(monkeypatch, params(), epochs=2)
    other = params(represent={"epochs": 1})
    represent.run(other)
    featurize.run(other)
    capsys.readouterr()
    represent.run(params())
    assert "going on after epoch 2/4" in capsys.readouterr().err


def test_other_code_does_not_go_on(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    represent.run(params())
    monkeypatch.setattr(pipeline, "code_digest", lambda _: "of another version")
    represent.run(params())
    assert "already finished" not in capsys.readouterr().err


def test_renamed_classes_go_on(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(monkeypatch, params(), epochs=2)
    artifacts.write_text(LAYOUT.classes, "azure\ngreen\nred\n")
    Path("data/blue").rename("data/azure")
    for split in ("train", "val"):
        listed = LAYOUT.split_list(split)  # type: ignore[arg-type]
        artifacts.write_text(listed, listed.read_text().replace("blue/", "azure/"))
    represent.run(params())
    assert "going on after epoch 2/4" in capsys.readouterr().err


def test_other_parameters_or_other_images_do_not_go_on(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(monkeypatch, params(), epochs=2)
    represent.run(params(represent={"optimizer": {"name": "sgd", "lr": 0.04}}))
    artifacts.write_text(LAYOUT.split_digest("val"), "other images\n")
    represent.run(params())
    assert "going on" not in capsys.readouterr().err


def test_a_damaged_checkpoint_is_a_fresh_start(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    represent.run(params())
    expected = written()
    forget()
    interrupted(monkeypatch, params(), epochs=2)
    (checkpoint,) = Path(".ltrec").glob("resume/represent/*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    represent.run(params())
    assert "damaged checkpoint" in capsys.readouterr().err
    assert written() == expected


def test_a_loss_that_is_not_finite_leaves_the_earlier_network_and_the_last_epoch(params: Build) -> None:
    represent.run(params())
    before = written()
    with pytest.raises(
        UserError, match=r"^params\.yaml: represent\.optimizer\.lr: the loss is \S+ at epoch \d+, step \d"
    ):
        represent.run(params(represent={"optimizer": {"name": "sgd", "lr": 1e30}}))
    assert written() == before


def test_the_last_update_of_an_epoch_is_seen(params: Build) -> None:
    # One update an epoch: its loss is finite, only what it leads to is not.
    wild = params(represent={"optimizer": {"name": "sgd", "lr": 1e38}, "batch_size": 28, "epochs": 1})
    seen = r"the largest logit on val is (nan|inf) at epoch 1, step 1; a lower lr than 1e\+38 may help"
    with pytest.raises(UserError, match=rf"^params\.yaml: represent\.optimizer\.lr: {seen}$"):
        represent.run(wild)
    assert not LAYOUT.model.exists()
    assert not list(Path(".ltrec").glob("resume/represent/*/checkpoint.pt")), "the last good one is kept: none"


def test_more_than_the_gpu_holds_is_one_line(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB.")

    monkeypatch.setattr(training, "train", full)
    with pytest.raises(
        UserError, match=r"^params\.yaml: represent\.batch_size: 8 images at a time need more .*20\.00 GiB"
    ):
        represent.run(params())


def test_a_file_that_vanished_is_one_line(params: Build) -> None:
    first = LAYOUT.split_list("train").read_text(encoding="utf-8").splitlines()[5].rpartition(" ")[0]
    Path("data", first).unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\).*`dvc repro` prepares it anew"):
        represent.run(params())


def test_a_decoding_process_killed_at_any_moment_is_one_line(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **_named: object) -> None:  # as PyTorch's handler of SIGCHLD does, in any line
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(training, "validate", interrupted)
    with pytest.raises(UserError, match=r"represent\.workers, .*: a process that decodes images was killed"):
        represent.run(params())


def test_fewer_images_than_a_batch_still_train(params: Build) -> None:
    represent.run(params(represent={"batch_size": 500, "epochs": 2}))
    assert len(artifacts.read_csv(LAYOUT.history)) == 2


def test_without_lists_the_stage_that_writes_them_is_named(params: Build) -> None:
    LAYOUT.split_list("val").unlink()
    with pytest.raises(UserError, match=r"val\.txt: no such file; `ltrec prepare`"):
        represent.run(params())


def test_the_network_sees_images_as_for_its_weights_and_what_is_set_otherwise_is_said(
    params: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = Preprocessing(Geometry(size=12, resize=14, interpolation="bicubic"), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    monkeypatch.setattr(CifarResNetBackbone, "preprocessing", lambda _self: published)
    settings = params()
    image = {"size": 8, "mean": (0.1, 0.2, 0.3)}
    represent.run(params(represent=settings.represent.model_dump() | {"image": image, "epochs": 1}))
    trained = network.load(LAYOUT.model)
    assert trained.geometry == Geometry(size=8, resize=9, interpolation="bicubic")
    assert trained.mean == (0.1, 0.2, 0.3)
    assert trained.std == (0.3, 0.3, 0.3)
    assert "size 8, not 12; mean 0.1, 0.2, 0.3, not 0.5, 0.5, 0.5" in capsys.readouterr().err


def test_crops_are_taken_from_copies_where_prepare_makes_them(params: Build) -> None:
    from ltrec.data.image_lists import read_list
    from ltrec.stages import prepare

    sections: dict[str, Any] = {"represent": {"augment": {"crop": {"name": "resized"}}}}
    represent.run(params(**sections))
    originals = written()
    sections["prepare"] = params().prepare.model_dump() | {"cache": {"short_side": 8, "format": "raw"}}
    prepare.run(params(**sections))
    assert len(list(Path(".ltrec/cache").glob("8-raw*/*/*.npy"))) == 28
    for path in read_list(LAYOUT.split_list("train"), 3).paths:
        Path("data", path).unlink()
    represent.run(params(**sections))
    assert written() != originals


def test_statistics_on_balanced_draws_are_all_that_they_change(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    represent.run(params())
    plain = network.load(LAYOUT.model).state_dict()
    forget()
    balanced = params(represent={"batch_norm": {}})
    interrupted(monkeypatch, balanced, epochs=3)
    represent.run(balanced)
    resumed = network.load(LAYOUT.model).state_dict()
    changed = {name.rpartition(".")[2] for name in plain if not torch.equal(plain[name], resumed[name])}
    assert {"running_mean", "running_var"} <= changed <= {"running_mean", "running_var", "num_batches_tracked"}
    forget()
    represent.run(balanced)
    whole = network.load(LAYOUT.model).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_an_optimizer_may_do_besides(params: Build, capsys: pytest.CaptureFixture[str]) -> None:
    represent.run(params(represent={"optimizer": {"name": "sgd", "sam_rho": 0.05, "head_max_norm": 0.01}}))
    assert "with sam_rho each update computes two gradients" in capsys.readouterr().err
    head = network.load(LAYOUT.model).head
    assert head.weight.norm(dim=1).tolist() == [pytest.approx(0.01, rel=1e-4)] * 3
