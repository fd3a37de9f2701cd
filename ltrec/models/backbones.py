"""Backbone families: networks from images (N, 3, H, W) to features (N, D); D is found out, not configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from ltrec import console
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError, one_line
from ltrec.models import timm_names
from ltrec.models.drop_path import set_drop_path
from ltrec.models.preprocessing import Preprocessing
from ltrec.models.pretrainable import SUFFIXES, WHERE, FromFile, Pretrainable
from ltrec.models.timm_backbones import TimmBackbone
from ltrec.settings import Fraction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema
    from torch import nn
    from torchvision.models import WeightsEnum

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
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


class CifarResNetBackbone(FromFile):
    """A CIFAR ResNet: 16-32-64 channels, for images of about 16 to 64 px."""

    name: CifarResNetName

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:  # noqa: ARG002 - one signature
        from ltrec.models.cifar_resnet import CifarResNet

        return CifarResNet(depth=int(self.name.removeprefix("cifar_resnet"))), ["fc.", "linear."]


class ResNet10Backbone(FromFile):
    """The paper's ResNet-10: one of torchvision's basic blocks a stage, 512 features."""

    name: Literal["resnet10"]

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:  # noqa: ARG002 - one signature
        from torchvision.models.resnet import BasicBlock, ResNet

        return _without_classifier(ResNet(BasicBlock, [1, 1, 1, 1]))


class ResNeXtBackbone(FromFile):
    """The paper's ResNeXts that torchvision does not name: its bottlenecks, 32 groups of 4 channels, 2048 features."""

    name: Literal["resnext101_32x4d", "resnext152_32x4d"]

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:  # noqa: ARG002 - one signature
        from torchvision.models.resnet import Bottleneck, ResNet

        layers = {"resnext101_32x4d": [3, 4, 23, 3], "resnext152_32x4d": [3, 8, 36, 3]}[self.name]
        return _without_classifier(ResNet(Bottleneck, layers, groups=32, width_per_group=4))


class TorchvisionBackbone(Pretrainable):
    """Any classification network of torchvision, without its last layer."""

    name: TorchvisionName
    weights: str | None = None
    """Pretrained weights: torchvision's name, such as `IMAGENET1K_V2` or `DEFAULT`, or a file (`.safetensors`, such
    as another training's `model.safetensors`; or `.pth` or `.pt` with a state dict); null: random.

    The resume key and the network's header hold the file's SHA-256; DVC does not see it change."""
    drop_path: Fraction | None = None
    """Drop path, or stochastic depth: the probability with which the last residual block is left out in training, with
    less before it and 0 in the first; null: as torchvision built the network. Only some networks have it."""

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:
        from torch import hub
        from torchvision import models

        weights = self._published() if pretrained else None
        if weights is not None and (terms := weights.meta.get("license")):
            console.warn(f"{self.name}: its weights have terms of their own, which may restrict their use: {terms}")
        try:
            network = models.get_model(self.name, weights=weights, **self._options(size, fetched=weights is not None))
        except (AssertionError, ValueError) as error:
            raise UserError(
                f"{self.name} with weights {self.weights!r} cannot be built for images of {size} px: {one_line(error)}",
                where=WHERE,
            ) from None
        except OSError as error:
            assert weights is not None, "only fetching opens anything"
            raise self._unfetched(weights.url, f"{hub.get_dir()}/checkpoints", error) from None
        if self.drop_path is not None:
            set_drop_path(network, self.drop_path, self.name)
        auxiliary = _AUXILIARY.get(self.name, ())
        for name in auxiliary:
            setattr(network, name, None)
            network.aux_logits = False
        body, classifier = _without_classifier(network)
        return body, [*classifier, *(f"{name}." for name in auxiliary)]

    def preprocessing(self) -> Preprocessing | None:
        published = self._published()
        if published is None:
            return None
        transform = published.transforms()
        (size,), (resize,) = transform.crop_size, transform.resize_size
        geometry = Geometry(size=size, resize=resize, interpolation=transform.interpolation.value)
        return Preprocessing(geometry, tuple(transform.mean), tuple(transform.std))

    def weights_license(self) -> str | None:
        published = self._published()
        return None if published is None else published.meta.get("license")

    def _published(self) -> WeightsEnum | None:
        """Return torchvision's weights of the name that is set; None for a file's, or none."""
        from torchvision import models

        if self.weights is None or self.file is not None:
            return None
        known = models.get_model_weights(self.name)
        if self.weights not in known.__members__:
            raise UserError(
                f"{self.name} has no weights {self.weights!r}; allowed: {', '.join(known.__members__)}, a file"
                f" ({', '.join(SUFFIXES)}), null",
                where=f"{WHERE}.weights",
            )
        return known[self.weights]

    def _options(self, size: int, *, fetched: bool) -> dict[str, Any]:
        """Return the arguments that some families need besides their name and weights."""
        if self.name.startswith("vit_"):
            return {"image_size": size}
        if self.name.startswith("maxvit_"):
            return {"input_size": (size, size)}
        if self.name in _AUXILIARY:
            # Pretrained ones renormalise their input, also when a file fills the weights in.
            transform = {"transform_input": self.weights is not None}
            return transform if fetched else transform | {"aux_logits": False, "init_weights": False}
        return {}


_Named = Annotated[
    CifarResNetBackbone | ResNet10Backbone | ResNeXtBackbone | TorchvisionBackbone, Field(discriminator="name")
]
_NAMED = "named"


def _family(settings: object) -> str:
    """Return the tag of the union's half that settings belong to: timm's names, or those of which each is written out.

    A name of timm's without its prefix, or with a tag, as only timm's have, belongs to timm's, where that is explained.
    """
    name = settings.get("name") if isinstance(settings, dict) else getattr(settings, "name", None)
    if not isinstance(name, str) or name in written_out():
        return _NAMED
    of_timm = name.startswith(timm_names.PREFIX) or "." in name or timm_names.exists(f"{timm_names.PREFIX}{name}")
    return timm_names.ANY if of_timm else _NAMED


def written_out() -> list[str]:
    """Return the names of all backbones but timm's, which only a list has."""
    members = get_args(get_args(_Named)[0])
    return [name for member in members for name in get_args(member.model_fields["name"].annotation)]


class _OneUnion:
    """Makes one union, told apart by name, of the two in the JSON Schema; timm's names are one entry of its mapping."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        named, of_timm = handler(core)["oneOf"]
        mapping = named["discriminator"]["mapping"] | {timm_names.ANY: of_timm["$ref"]}
        return {
            "discriminator": {"mapping": mapping, "propertyName": "name"},
            "oneOf": [*named["oneOf"], of_timm],
        }


BackboneSettings = Annotated[
    Annotated[_Named, Tag(_NAMED)] | Annotated[TimmBackbone, Tag(timm_names.ANY)],
    Discriminator(_family),
    _OneUnion(),
]


def feature_dim(backbone: nn.Module, size: int, name: str) -> int:
    """Return the number of features D, found by a forward pass of an empty image.

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
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UserError(
            f"{name} gives {shape} of an image, not one vector: no backbone for a classifier", where=f"{WHERE}.name"
        )
    return int(features.shape[1])


def _without_classifier(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Put an identity for the last linear layer (SqueezeNet: convolution); return the network and its prefix."""
    from torch import nn

    kind = nn.Linear if any(isinstance(module, nn.Linear) for module in network.modules()) else nn.Conv2d
    last = [name for name, module in network.named_modules() if isinstance(module, kind)][-1]
    network.set_submodule(last, nn.Identity())
    return network, [f"{last}."]
