"""`params.yaml` as one model. It only assembles: each section's class stands beside its algorithm."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ltrec import pipeline
from ltrec.compute.device import DeterminismName, DeviceName
from ltrec.config import config_errors, yaml_source
from ltrec.config.evaluate import EvaluateSettings
from ltrec.config.export import ExportSettings
from ltrec.config.featurize import FeaturizeSettings
from ltrec.config.prepare import PrepareSettings
from ltrec.config.represent import RepresentSettings
from ltrec.config.tracking import TrackingSettings
from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.methods import RebalancerSettings
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.settings import Settings, conflict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A variant names a folder, a DVC stage, a parameter of `dvc exp run -S`, an MLflow run and a table column.
_VARIANT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_TAKEN = frozenset(
    {"champion", "champion_doubt", "class", "label", "selected_on", "shot", "test", "test_set", "train", "val"}
)


def _variant_name(name: str) -> str:
    if not _VARIANT_NAME.fullmatch(name):
        raise ValueError(
            "not a name for a variant; allowed: lower-case letters, digits, _ and -, a letter first, at most 50"
        )
    if name in _TAKEN:
        raise ValueError(f"not a name for a variant: the outputs use it; taken are {', '.join(sorted(_TAKEN))}")
    return name


VariantName = Annotated[str, AfterValidator(_variant_name)]


class Params(Settings):
    """What a user of ltrec decides: a section for each stage of the pipeline."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Every random choice follows from it."""
    device: DeviceName = "auto"
    """Where to compute; auto: on the GPU if there is one."""
    deterministic: DeterminismName = "warn"
    """What to do where a GPU's operation does not repeat; off: take the fastest algorithms, and results vary in their
    last digits."""
    prepare: PrepareSettings = PrepareSettings()
    represent: RepresentSettings
    featurize: FeaturizeSettings = FeaturizeSettings()
    rebalance: Annotated[
        dict[VariantName, RebalancerSettings],
        Field(min_length=1, json_schema_extra={"propertyNames": {"pattern": f"^{_VARIANT_NAME.pattern}$"}}),
    ]
    """The variants to compare, each `name: {method: …}`."""
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _classifiers_fit_the_joint_head(self) -> Self:
        head = self.represent.head
        for name, variant in self.rebalance.items():
            where = ("rebalance", name)
            if head.name != "linear" and isinstance(variant, Adjustable) and variant.needs_linear_joint:
                raise conflict(
                    (*where, "method"),
                    f"{variant.method} works on the weights of a linear joint head, and represent.head is {head.name};"
                    " allowed: another method, or represent.head: {name: linear}",
                )
            if isinstance(variant, CrtSettings) and variant.init == "joint" and variant.head != head:
                raise conflict(
                    (*where, "init"),
                    "joint goes on with the joint classifier, and head is another than represent.head; allowed: random,"
                    " or the same head",
                )
        if not self.represent.epochs and self.featurize.probe.loss.of_cosines and head.name != "cosine":
            loss = self.featurize.probe.loss.name
            raise conflict(
                ("featurize", "probe", "loss"),
                f"{loss} takes its margins from cosines; allowed: represent.head: {{name: cosine}}, or another loss",
            )
        return self

    @model_validator(mode="after")
    def _exported_variant_exists(self) -> Self:
        allowed = ["champion", *self.rebalance]
        if self.export.variant not in allowed:
            raise conflict(
                ("export", "variant"),
                f"no such variant in rebalance, got {self.export.variant}; allowed: {', '.join(allowed)}",
            )
        return self


def load(path: Path) -> Params:
    """Return the parameters in a file.

    Raises:
        UserError: There are mistakes; a line for each says file, line, column, path, the value seen, what is allowed.
    """
    return _checked(yaml_source.read(path))


def parse(text: str, name: str = "params.yaml") -> Params:
    """Return the parameters in a text, as `load` does; `name` stands in the messages."""
    return _checked(yaml_source.parse(text, name))


def missing_for_dvc(path: Path) -> list[str]:
    """Return what a valid file leaves to the defaults and DVC wants to find in it, as dotted paths.

    DVC knows no defaults: it stops where the file lacks a parameter that `dvc.yaml` names.
    """
    content = json.loads(yaml_source.read(path).content)
    named = {name for stage in pipeline.stages().values() for name in stage.params if "$" not in name}
    return [name for name in sorted({*named, "prepare.source.root"}) if not _has(content, name)]


@functools.cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `params.yaml`, for editors."""
    schema = Params.model_json_schema()
    for node in _tagged_unions(schema):
        tag, members = node["discriminator"]["propertyName"], node["discriminator"]["mapping"].values()
        for reference in members:
            member = schema["$defs"][reference.rpartition("/")[2]]
            # pydantic needs the tag even where the member has a default for it.
            member["required"] = sorted({*member.get("required", ()), tag})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "params.yaml of ltrec"}


def schema_text() -> str:
    """Return the schema as `ltrec/config/params.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _checked(source: yaml_source.Source) -> Params:
    try:
        # As JSON, where a list may stand for a tuple; otherwise strict.
        return Params.model_validate_json(source.content)
    except ValidationError as error:
        raise config_errors.refusal(error, source, json_schema()) from None


def _has(content: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _tagged_unions(node: object) -> Iterator[dict[str, Any]]:
    """Yield the unions in a schema whose members are told apart by a tag."""
    if isinstance(node, dict) and isinstance(node.get("discriminator"), dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _tagged_unions(part)
