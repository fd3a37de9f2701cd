"""Batches of features from images: what the frozen network gives for new views, and the network stays as it was."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from ltrec.data.images.augmentation import AugmentSettings, NoCrop, PadCrop
from ltrec.data.images.decoding import Geometry, decode_rgb, square
from ltrec.data.images.device_loader import DeviceLoader
from ltrec.errors import UserError
from ltrec.models import network as networks
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.models.heads import LinearHead
from ltrec.models.network import predict_features
from ltrec.rebalancing import featurizing
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.image_features import ImageFeatures
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.rebalancing.methods.lws import LwsSettings

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.data.images.augmentation import Augment
    from ltrec.models.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core

GEOMETRY = Geometry(size=8, resize=10)
LABELS = torch.tensor([0] * 9 + [1] * 4 + [2] * 2)
PATHS = [f"{n}.png" for n in range(len(LABELS))]
AUGMENTED = AugmentSettings(crop=PadCrop(padding=2), jitter=0.2).build()
PLAIN = AugmentSettings(crop=NoCrop(), flip=False).build()
CPU = torch.device("cpu")
METHODS = [
    CrtSettings(method="crt", epochs=3, batch_size=4, images=True),
    LwsSettings(method="lws", epochs=3, batch_size=4, images=True),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = (
        np.random.default_rng(0).integers(0, 90, (len(PATHS), 12, 12, 3)) + 60 * LABELS.numpy()[:, None, None, None]
    )
    for path, image in zip(PATHS, pixels.astype(np.uint8), strict=True):
        Image.fromarray(image).save(folder / path)
    return folder


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = networks.build(CifarResNetBackbone(name="cifar_resnet8"), GEOMETRY, (0.5,) * 3, (0.3,) * 3, 3)
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as if trained: neither mean 0 nor variance 1
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return made.eval()


def plain_features(network: Network, root: Path) -> torch.Tensor:
    pixels = np.stack([square(decode_rgb(root / path), GEOMETRY) for path in PATHS])
    return predict_features(network, torch.from_numpy(pixels)).clone()


@pytest.fixture
def bank(network: Network, root: Path) -> FeatureBank:
    return FeatureBank(plain_features(network, root)[None], LABELS, {"split": "train"})


def images_of(
    bank: FeatureBank, network: Network, root: Path, augment: Augment = AUGMENTED, *, told: list[int] | None = None,
    workers: int = 0,
) -> ImageFeatures:  # fmt: skip
    loader = DeviceLoader((root, PATHS), GEOMETRY, CPU, 4, augment=augment, workers=workers)
    return ImageFeatures.of(bank, network, loader, on_images=(told if told is not None else list[int]()).append)


def epoch(images: ImageFeatures, number: int = 0, seed: int = 0) -> list[torch.Tensor]:
    drawn = np.random.default_rng(5).permutation(len(PATHS))
    return list(images.batches(drawn, 4, epoch=number, seed=seed))


class Seen:
    """Augments, and notes what it was given."""

    crop = None
    draws = AUGMENTED.draws

    def __init__(self) -> None:
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, squares: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        self.given.append((squares, draws))
        return AUGMENTED(squares, draws)


def test_each_image_drawn_augmented_and_through_the_network(bank: FeatureBank, network: Network, root: Path) -> None:
    seen: Any = Seen()
    given = epoch(images_of(bank, network, root, seen))
    drawn = np.random.default_rng(5).permutation(len(PATHS))
    assert [batch.shape for batch in given] == [(4, network.head.dim)] * 3, "three images fill no batch"
    squares, draws = (torch.cat(parts) for parts in zip(*seen.given, strict=True))
    assert len({tuple(row.tolist()) for row in draws}) == 12
    for row, image, pixels, draw in zip(torch.cat(given), drawn, squares, draws, strict=False):
        assert np.array_equal(pixels.numpy(), square(decode_rgb(root / PATHS[image]), GEOMETRY))
        with torch.no_grad():
            alone = network.features(AUGMENTED(pixels[None], draw[None]))[0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_new_views_in_each_epoch_and_the_same_bits_again(bank: FeatureBank, network: Network, root: Path) -> None:
    images = images_of(bank, network, root)
    first, second, other = (torch.cat(epoch(images, *at)) for at in ((0, 0), (1, 0), (0, 1)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    for workers in (0, 2):
        again = images_of(bank, network, root, workers=workers)
        assert torch.equal(torch.cat(epoch(again, 1)), second), "whatever epoch came before, and in any process"


def test_views_are_others_than_the_representations_and_the_banks(
    bank: FeatureBank, network: Network, root: Path
) -> None:
    seen: Any = Seen()
    images = images_of(bank, network, root, seen)
    for number in range(3):
        epoch(images, number)
    own = {tuple(row.tolist()) for _, draws in seen.given for row in draws}
    assert len(own) == 36
    elsewhere: Any = Seen()
    for start in (0, featurizing._VIEW_STREAM):
        for number in range(10):
            loader = DeviceLoader((root, PATHS), GEOMETRY, CPU, 4, augment=elsewhere)
            list(loader.epoch(np.arange(len(PATHS)), (0, start + number), drop_last=False))
    assert not own & {tuple(row.tolist()) for _, draws in elsewhere.given for row in draws}


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: settings.method)
def test_without_augmentation_images_are_what_the_bank_holds(
    settings: CrtSettings | LwsSettings, bank: FeatureBank, network: Network, root: Path
) -> None:
    joint = network.head
    assert isinstance(joint, LinearHead)
    of_images = settings.build(0).fit(images_of(bank, network, root, PLAIN), bank, joint)
    of_bank = settings.build(0).fit(bank, bank, joint)
    torch.testing.assert_close(of_images.head.state_dict(), of_bank.head.state_dict(), atol=1e-4, rtol=1e-4)
    assert of_images.chosen == of_bank.chosen


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: settings.method)
def test_twice_the_same_head_and_the_network_bit_for_bit_as_before(
    settings: CrtSettings | LwsSettings, bank: FeatureBank, network: Network, root: Path
) -> None:
    before = copy.deepcopy(network.state_dict())
    assert any(name.endswith("running_var") for name in before)
    joint = network.head
    assert isinstance(joint, LinearHead)
    random_before = torch.random.get_rng_state()
    first, again = (settings.build(0).fit(images_of(bank, network, root), bank, joint).head for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), random_before)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_in_training_mode_is_not_frozen(bank: FeatureBank, network: Network, root: Path) -> None:
    with pytest.raises(AssertionError, match="evaluation mode"):
        images_of(bank, network.train(), root)


def test_a_batch_at_a_time(bank: FeatureBank, network: Network, root: Path) -> None:
    seen: Any = Seen()
    batches = images_of(bank, network, root, seen).batches(np.arange(12), 4, epoch=0, seed=0)
    for number in (1, 2):
        next(batches)
        assert len(seen.given) == number


def test_what_is_done_is_told(bank: FeatureBank, network: Network, root: Path) -> None:
    told: list[int] = []
    epoch(images_of(bank, network, root, told=told))
    assert told == [4, 4, 4]


def test_the_plain_features_are_still_the_banks(bank: FeatureBank, network: Network, root: Path) -> None:
    images = images_of(bank, network, root)
    assert torch.equal(images.plain, bank.plain)
    assert (images.views, images.header) == (1, bank.header)


def test_a_file_that_vanished_is_named(bank: FeatureBank, network: Network, root: Path, tmp_path: Path) -> None:
    copy_of = shutil.copytree(root, tmp_path / "images")
    (copy_of / PATHS[3]).unlink()
    with pytest.raises(UserError, match=r"3\.png: cannot be read \(No such file"):
        epoch(images_of(bank, network, copy_of))
