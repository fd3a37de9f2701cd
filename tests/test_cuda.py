"""What only a GPU shows: half precision, channels-last weights, and copies between devices."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ltrec.compute.precision import resolve
from ltrec.data.images import device_loader as feeding
from ltrec.data.images.augmentation import AugmentSettings, PadCrop
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.device_loader import DeviceLoader
from ltrec.models import network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.models.network import predict_features
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.training.loop import EpochReport, train
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.optim import CosineSchedule, Sgd
from ltrec.training.step import ComputeConfig, Gradients
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltrec.models.network import Network
    from ltrec.training.losses.module import LossModule
    from tests.conftest import Banks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = torch.device("cuda")
EPOCHS, BATCH = 4, 8
LABELS = torch.arange(32) % 4


def images() -> torch.Tensor:
    """Four shades, and noise."""
    noise = torch.randint(0, 40, (32, 16, 16, 3), generator=torch.Generator().manual_seed(0))
    return (noise + 50 * LABELS[:, None, None, None]).to(torch.uint8)


def loss_on_gpu() -> LossModule:
    return CrossEntropy().build(np.full(4, 8)).to(GPU)


class Training:
    """Of a CIFAR ResNet-8 on the GPU, as the stage runs it; it may be stopped and gone on with."""

    def __init__(self, state: dict[str, Any] | None = None, **compute: Any) -> None:
        self.mode = ComputeConfig(**{"precision": resolve("auto", GPU)} | compute)
        torch.manual_seed(0)
        built = network.build(
            CifarResNetBackbone(name="cifar_resnet8"), Geometry(size=16, resize=16), (0.5,) * 3, (0.3,) * 3, 4
        )
        self.network: Network = network.on_device(built, GPU)
        optimizer = Sgd(lr=0.05).build(self.network, nn.Identity())
        schedule = CosineSchedule().build(optimizer, epochs=1, steps=EPOCHS * 4)
        self.parts: dict[str, Any] = {"network": self.network, "optimizer": optimizer, "schedule": schedule}
        self.reports: list[EpochReport] = []
        for name, part in self.parts.items() if state else ():
            part.load_state_dict(state[name])

    def run(self, epochs: range) -> dict[str, Any]:
        pixels = images()
        batches = [(pixels[i : i + BATCH].cuda(), LABELS[i : i + BATCH].cuda()) for i in range(0, 32, BATCH)]
        train(
            self.network, loss_on_gpu(), lambda _epoch: batches, self.parts["optimizer"], self.parts["schedule"],
            epochs=epochs, batch_size=BATCH, seed=0, on_epoch=self.reports.append, compute=self.mode,
        )  # fmt: skip
        return {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}


@pytest.fixture(autouse=True)
def _as_in_a_stage(restored_torch: None) -> Iterator[None]:  # noqa: ARG001
    from ltrec.compute import device, precision

    with device.repeatable(0, "warn"), precision.exact_float32():
        yield


def test_a_resume_ends_with_the_bits_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = Training()
    expected = whole.run(range(EPOCHS))["network"]
    assert whole.reports[-1].loss < whole.reports[0].loss
    torch.save(Training().run(range(2)), tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", map_location="cpu", weights_only=True)
    resumed = Training(state).run(range(2, EPOCHS))["network"]
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


def test_weights_lie_channels_last_and_stay_so() -> None:
    training = Training()
    training.run(range(1))
    for name, parameter in training.network.named_parameters():
        assert parameter.dtype == torch.float32
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last), name


def test_features_are_those_of_the_cpu_but_for_half_precision() -> None:
    training = Training()
    training.run(range(2))
    trained = training.network.eval()
    on_gpu = predict_features(trained, images().cuda(), training.mode.precision)
    on_cpu = predict_features(trained.cpu(), images())
    assert on_gpu.dtype == torch.float32
    # bfloat16 keeps 8 bits.
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0.05, atol=0.05 * float(on_cpu.abs().max()))


def test_fp32_features_are_those_of_the_cpu() -> None:
    # cuDNN's default, TF32, would be a thousandth off.
    network = Training(precision="fp32").network.eval()
    on_gpu, on_cpu = predict_features(network, images().cuda()).cpu(), predict_features(network.cpu(), images())
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-5, atol=1e-5 * float(on_cpu.abs().max()))


def test_crt_is_fitted_on_the_bank(banks: Banks) -> None:
    gpu = torch.device("cuda")
    train_bank, val = banks.train.to(gpu), banks.val.to(gpu)
    fitted = (
        CrtSettings(method="crt", epochs=5, batch_size=8)
        .build(0)
        .fit(train_bank, val, copy.deepcopy(banks.joint).to(gpu))
    )
    assert all(tensor.is_cuda for tensor in fitted.head.state_dict().values())
    head = fitted.head.cpu()
    assert balanced_accuracy(head(banks.val.plain), banks.val.labels) > 0.5


def test_a_batch_that_does_not_fit_is_one_line() -> None:
    from ltrec.compute.device import memory_for
    from ltrec.errors import UserError

    with (
        pytest.raises(UserError, match=r"^here: they need more memory than the GPU has; .*CUDA out of memory"),
        memory_for("they", where="here", instead="none"),
    ):
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize(
    "compute", [{"precision": "fp16"}, {"micro_batches": 2}, {"compiled": "default"}, {"compiled": "reduce-overhead"}]
)
def test_each_mode_learns_the_same(compute: dict[str, Any]) -> None:
    plain, other = Training(precision="fp32"), Training(**{"precision": "fp32"} | compute)
    plain.run(range(EPOCHS))
    other.run(range(EPOCHS))
    # Micro-batches have batch-norm statistics of their own.
    assert other.reports[-1].loss == pytest.approx(
        plain.reports[-1].loss, rel=0.3 if "micro_batches" in compute else 0.1
    )


def test_a_batch_that_does_not_fit_is_cut() -> None:
    import torch.nn.functional as F

    class Wide(torch.nn.Module):
        """An image takes a sixth of the memory."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, device=GPU))
            self.floats = torch.cuda.get_device_properties(GPU).total_memory // 24

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            large = self.weight.expand(len(images), self.floats).contiguous()
            return F.pad(large[:, :1], (0, 1))

    gradients = Gradients(Wide(), loss_on_gpu(), BATCH, ComputeConfig(auto_split=True))
    given = torch.zeros(BATCH, 1, device=GPU), torch.zeros(BATCH, dtype=torch.int64, device=GPU)
    gradients.fit_memory(*given)
    loss, _ = gradients.accumulate(*given)
    assert gradients.micro_batches in {2, 4}
    assert torch.isfinite(loss)


@pytest.mark.parametrize("resident", [True, False])
def test_what_arrives_on_the_gpu_is_what_the_cpu_sees(
    resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = images()
    for n, image in enumerate(pixels.numpy()):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    monkeypatch.setattr(feeding, "_RESIDENT_BYTES", 2**30 if resident else 0)
    augment, paths = AugmentSettings(crop=PadCrop(), jitter=0.4).build(), [f"{n}.png" for n in range(32)]
    on_cpu, on_gpu = (
        DeviceLoader((tmp_path, paths), Geometry(size=16, resize=16), device, BATCH, augment=augment, workers=0)
        for device in (torch.device("cpu"), GPU)
    )
    order = np.random.default_rng(0).permutation(32)
    batches = [list(loader.epoch(order, (0, 0), drop_last=True)) for loader in (on_cpu, on_gpu)]
    for (views, index), (sent, sent_index) in zip(*batches, strict=True):
        assert sent.is_cuda
        assert torch.equal(sent_index.cpu(), index)
        torch.testing.assert_close(sent.cpu(), views, atol=0.5, rtol=0)
