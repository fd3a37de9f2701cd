"""timm's networks: a thousand architectures by their names, with the weights that are published for them."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from ltrec import console
from ltrec.data.images.decoding import CropMode, Geometry, Interpolation
from ltrec.errors import UserError, one_line
from ltrec.models import timm_names
from ltrec.models.hub import FetchError, fetched
from ltrec.models.preprocessing import Preprocessing
from ltrec.models.pretrainable import SUFFIXES, WHERE, Pretrainable
from ltrec.settings import Fraction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

_PRETRAINED = "pretrained"
_CROPS: dict[str, CropMode] = {"center": "centre", "squash": "squash"}
_PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})
# What timm raises on sizes that an architecture does not take, and on files that are another's.
_UNFIT = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_FILES = ("model.safetensors", "pytorch_model.bin")


class TimmBackbone(Pretrainable):
    """Any network of timm's, without its classifier."""

    name: Annotated[str, AfterValidator(timm_names.known_name)] = Field(
        examples=[
            "timm/vit_small_patch14_dinov2.lvd142m", "timm/vit_base_patch16_siglip_224.webli",
            "timm/convnext_tiny.in12k_ft_in1k", "timm/tf_efficientnet_lite0.in1k",
        ],
        json_schema_extra={"pattern": rf"^{timm_names.PREFIX}\w+(\.\w+)?$"},
    )  # fmt: skip
    """timm's name behind `timm/`: an architecture, or an architecture and the tag of its weights, such as
    `timm/vit_small_patch14_dinov2.lvd142m`."""
    weights: str | None = None
    """Pretrained weights: `pretrained`, those that timm publishes for the name, fetched once from the Hugging Face hub
    (timm's default where the name has no tag); or a file (`.safetensors`, such as another training's
    `model.safetensors`; or `.pth` or `.pt` with a state dict); null: random.

    The resume key and the network's header hold the file's SHA-256; DVC does not see it change."""
    drop_path: Fraction | None = None
    """Drop path, or stochastic depth: the probability with which the last residual block is left out in training, with
    less before it and 0 in the first; null: as timm builds the network. Only some networks have it."""

    @model_validator(mode="after")
    def _weights_are_published_or_a_file(self) -> Self:
        allowed = f"a file ({', '.join(SUFFIXES)}) or null"
        if self.weights == _PRETRAINED and not timm_names.has_weights(self.name):
            raise ValueError(f"weights must be {allowed}, got {_PRETRAINED}: timm publishes none for {self.name}")
        if self.weights not in {None, _PRETRAINED} and self.file is None:
            raise ValueError(f"weights must be {_PRETRAINED}, {allowed}, got {self.weights!r}")
        return self

    def preprocessing(self) -> Preprocessing | None:
        """Return how timm evaluates the weights; a file is taken to hold weights like those of the name.

        Raises:
            UserError: They want what ltrec does not do.
        """
        if self.weights is None:
            return None
        published = self._published()
        channels, height, width = published.input_size
        how, crop = published.interpolation, published.crop_mode
        if (channels, height) != (3, width) or how not in get_args(Interpolation) or crop not in _CROPS:
            raise UserError(
                f"{self.name}'s weights want images of {channels} channels, {height} × {width}, {how}, crop {crop};"
                f" ltrec's have 3 and are squares, {' or '.join(get_args(Interpolation))}, crop {' or '.join(_CROPS)}",
                where=f"{WHERE}.name",
            )
        resize = math.floor(height / published.crop_pct)
        geometry = Geometry(size=height, resize=resize, interpolation=how, crop=_CROPS[crop])
        return Preprocessing(geometry, tuple(published.mean), tuple(published.std))

    def weights_license(self) -> str | None:
        return self._published().license if self.weights == _PRETRAINED else None

    def _body(self, size: int, *, pretrained: bool) -> tuple[nn.Module, Sequence[str]]:
        from safetensors import SafetensorError
        from torch import hub

        published = self._published()
        source = self._source(published) if pretrained and self.weights == _PRETRAINED else {}
        # Position embeddings are made for one size: those of the weights are interpolated to it.
        options: dict[str, Any] = {"img_size": size} if published.fixed_input_size else {}
        if self.drop_path is not None:
            options["drop_path_rate"] = self.drop_path
        try:
            network = _timm().create_model(self._timms_name, num_classes=0, **options, **source)
        except OSError as error:
            raise self._unfetched(published.url, f"{hub.get_dir()}/checkpoints", error) from None
        except SafetensorError as error:
            file = source["pretrained_cfg_overlay"]["file"]
            raise UserError(f"damaged ({one_line(error, 80)}); delete it, and it is fetched anew", where=file) from None
        except _UNFIT as error:
            raise UserError(
                f"{self.name} with weights {self.weights!r} cannot be built for images of {size} px: {one_line(error)}",
                where=WHERE,
            ) from None
        self._require_whole_patches(network, size)
        classifiers = published.classifier or ()
        names = (classifiers,) if isinstance(classifiers, str) else classifiers
        return network, [prefix for name in names for prefix in _left_out(name, network)]

    def _translated(self, tensors: Mapping[str, Tensor], body: nn.Module) -> Mapping[str, Tensor]:
        """Return a file's tensors as the network has them: older names renewed, position embeddings interpolated.

        Raises:
            UserError: They are another network's.
        """
        architecture = _timm().models.model_entrypoint(self._timms_name)
        # By this name most of timm's modules have what reads files of other makes; a few families want more than that.
        translate = getattr(sys.modules[architecture.__module__], "checkpoint_filter_fn", None)
        try:
            return tensors if translate is None else translate(dict(tensors), body)
        except _UNFIT as error:
            raise UserError(f"does not fit {self.name}: {one_line(error)}", where=str(self.file)) from None

    @property
    def _timms_name(self) -> str:
        return self.name.removeprefix(timm_names.PREFIX)

    def _published(self) -> Any:
        """Return timm's `PretrainedCfg` of the name: where its weights lie, and how they see images."""
        try:
            return _timm().get_pretrained_cfg(self._timms_name, allow_unregistered=False)
        except RuntimeError as error:  # listed, and not in the timm that is installed
            raise UserError(f"timm {_timm().__version__}: {one_line(error)}", where=f"{WHERE}.name") from None

    def _source(self, published: Any) -> dict[str, Any]:
        """Return the arguments with which timm loads its weights: from a file, or from a URL that it fetches itself."""
        if warning := license_warning(published.license):
            terms = f": https://huggingface.co/{published.hf_hub_id}" if published.hf_hub_id else ""
            console.warn(f"{self.name}: {warning}{terms}")
        if not published.hf_hub_id:
            return {"pretrained": True}
        names = [published.hf_hub_filename] if published.hf_hub_filename else _FILES
        try:
            file = fetched(published.hf_hub_id, names)
        except FetchError as error:
            if error.denied:
                raise UserError(
                    f"the hub does not give {error.wanted} to everybody: accept its terms there, then log in"
                    " (`hf auth login`, or HF_TOKEN); or set weights: FILE",
                    where=f"{WHERE}.weights",
                ) from None
            raise self._unfetched(error.wanted, error.cache, error.reason) from None
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}

    def _require_whole_patches(self, network: nn.Module, size: int) -> None:
        """Refuse images that a vision transformer cannot cut into whole patches."""
        embedding: Any = getattr(network, "patch_embed", None)
        if not isinstance(embedding, _timm().layers.PatchEmbed) or embedding.dynamic_img_pad:
            return
        side = math.lcm(*embedding.patch_size)
        if size % side:
            below = size // side * side
            raise UserError(
                f"{self.name} cuts images into patches of {side} px, got {size}; allowed: multiples of {side}, such as"
                f" {below or side} and {below + side if below else 2 * side}",
                where="params.yaml: represent.image.size",
            )


def _left_out(classifier: str, network: nn.Module) -> list[str]:
    """Return the prefix of all that goes with a classifier: the topmost module of its path of which nothing is left."""
    parts, left = classifier.split("."), list(network.state_dict())
    paths = (".".join((*parts[:depth], "")) for depth in range(1, len(parts) + 1))
    return [path for path in paths if not any(name.startswith(path) for name in left)][:1]


def license_warning(name: str | None) -> str:
    """Return what a licence's name calls for saying; empty where it leaves nearly everything free."""
    if name in _PERMISSIVE:
        return ""
    if name in {None, "", "unknown", "other"}:
        return "no licence is stated for its weights"
    if "-nc" in name or "noncommercial" in name:
        return f"its weights are not for commercial use (licence {name})"
    return f"its weights have terms of their own, which may restrict their use (licence {name})"


def _timm() -> Any:
    """Return timm, imported when it is first needed: it brings torch, and takes seconds."""
    import timm

    return timm
