"""Backbone families: images (N, 3, H, W) → features (N, D), with D found out, not configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ltrec.errors import UserError, one_line
from ltrec.settings import Settings

if TYPE_CHECKING:
    from torch import nn

CifarResNetName = Literal["cifar_resnet8", "cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56"]

# torchvision.models.list_models(module=torchvision.models), written out so that a params file is checked
# without importing torch; a test compares the two.
TorchvisionName = Literal[
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf",
    "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101",
    "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b",
    "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
]  # fmt: skip

# Networks whose auxiliary classifiers are left out: training without them does not need them.
_AUXILIARY = ("googlenet", "inception_v3")


class CifarResNetBackbone(Settings):
    """A CIFAR ResNet: 16-32-64 channels, for images of about 16 to 64 px."""

    name: CifarResNetName

    def build(self, size: int, *, pretrained: bool = True) -> nn.Module:  # noqa: ARG002 - one signature
        from ltrec.cifar_resnet import CifarResNet

        return CifarResNet(depth=int(self.name.removeprefix("cifar_resnet")))


class TorchvisionBackbone(Settings):
    """Any classification network of torchvision, without its last layer."""

    name: TorchvisionName
    weights: str | None = None
    """Pretrained weights by torchvision's name, such as `IMAGENET1K_V2` or `DEFAULT`; null: random."""

    def build(self, size: int, *, pretrained: bool = True) -> nn.Module:
        """The network without its classifier; `pretrained` false leaves the weights random.

        Raises:
            UserError: unknown or unreachable weights, or an image size that the network does not take.
        """
        from torchvision import models

        weights, where = self.weights if pretrained else None, "params.yaml: represent.backbone"
        known = list(models.get_model_weights(self.name).__members__)
        if weights is not None and weights not in known:
            raise UserError(
                f"{self.name} has no weights {weights!r}; allowed: {', '.join(known)}, null", where=f"{where}.weights"
            )
        try:
            network = models.get_model(self.name, weights=weights, **self._options(size, fetched=weights is not None))
        except (AssertionError, ValueError) as error:
            raise UserError(
                f"{self.name} with weights {weights!r} cannot be built for images of {size} px: {one_line(error)}",
                where=where,
            ) from None
        except OSError as error:
            raise UserError(
                f"the weights {weights!r} could not be fetched: {one_line(error)}", where=f"{where}.weights"
            ) from None
        if self.name in _AUXILIARY:
            _leave_out_auxiliary(network)
        return _without_classifier(network)

    def _options(self, size: int, *, fetched: bool) -> dict[str, Any]:
        """What some families must be told besides their name and weights."""
        if self.name.startswith("vit_"):
            return {"image_size": size}
        if self.name.startswith("maxvit_"):
            return {"input_size": (size, size)}
        if self.name in _AUXILIARY:
            # Pretrained ones renormalise their input, also when a file of ours fills the weights in.
            transform = {"transform_input": self.weights is not None}
            return transform if fetched else transform | {"aux_logits": False, "init_weights": False}
        return {}


BackboneSettings = Annotated[CifarResNetBackbone | TorchvisionBackbone, Field(discriminator="name")]


def feature_dim(backbone: nn.Module, size: int, name: str) -> int:
    """D, from one forward pass of an empty image.

    Raises:
        UserError: the network does not take images of this size.
    """
    import torch

    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{name} does not take images of {size} px: {one_line(error)}",
            where="params.yaml: represent.image.size",
        ) from None
    finally:
        backbone.train(training)
    assert features.ndim == 2, "a backbone ends in one vector an image"
    return int(features.shape[1])


def _leave_out_auxiliary(network: Any) -> None:
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
    network.aux_logits = False


def _without_classifier(network: nn.Module) -> nn.Module:
    """Put an identity in place of the last linear layer (SqueezeNet: the last convolution)."""
    from torch import nn

    kind = nn.Linear if any(isinstance(module, nn.Linear) for module in network.modules()) else nn.Conv2d
    last = [name for name, module in network.named_modules() if isinstance(module, kind)][-1]
    network.set_submodule(last, nn.Identity())
    return network
