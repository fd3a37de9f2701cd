"""Good and bad parameters: each kind of mistake with its place and what its line must say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ltrec.config import params
from ltrec.errors import UserError
from ltrec.rebalancing.methods.ensemble import EnsembleSettings

REPOSITORY = Path(__file__).parents[2]

GOOD = """\
seed: 0
device: auto
prepare:
  source: {kind: folder, root: data}
  split: {val: 10, test: 40}
  long_tail: {profile: exponential, imbalance_factor: 30, n_max: 120}
represent:
  backbone: {name: cifar_resnet8}
  image: {size: 16, resize: 16}
  optimizer: {name: sgd, lr: 0.1, weight_decay: 5e-4}
  epochs: 40
featurize:
  views: 0
rebalance:
  joint: {method: joint}
  crt:
    method: crt
    lr: 0.1
  tau: {method: tau_norm, taus: [0, 0.5, 1]}
evaluate:
  shots: {many_above: 100, few_below: 20}
export:
  variant: champion
tracking:
  experiment: ltrec
"""

# A mistake in place of a piece of GOOD, and the line that must come: its place and the words in it.
BAD = [
    # Unknown keys
    (
        "seed: 0",
        "seeds: 0",
        "1:1: seeds: ",
        "unknown key (did you mean seed?); allowed: seed, device, deterministic, prepare, ",
    ),
    (
        "lr: 0.1, weight_decay",
        "lr: 0.1, weights_decay: 1, weight_decay",
        "10:35: represent.optimizer.weights_decay: ",
        "unknown key (did you mean weight_decay?); allowed: lr, momentum, weight_decay, head_lr, head_weight_decay,",
    ),
    # Missing keys
    ("{name: cifar_resnet8}", "{}", "8:3: represent.backbone.name: ", "missing; allowed: alexnet, "),
    ("{name: sgd, lr: 0.1, ", "{lr: 0.1, ", "10:3: represent.optimizer.name: ", "missing; allowed: adamw, sgd"),
    ("    method: crt\n", "", "16:3: rebalance.crt.method: ", "missing; allowed: crt, disalign, ensemble and "),
    ("  backbone: {name: cifar_resnet8}\n", "", "7:1: represent.backbone.name: ", "missing; allowed: alexnet, "),
    ("epochs: 40", "schedule: {name: step}", "11:3: represent.schedule.milestones: ", "missing; Epochs after which"),
    # Wrong types
    ("epochs: 40", "epochs: forty", "11:11: represent.epochs: ", "integer, got forty"),
    ("epochs: 40", "epochs: 40.0", "11:11: represent.epochs: ", "integer, got 40.0"),
    ("epochs: 40", "epochs: 2.5", "11:11: represent.epochs: ", "integer, got 2.5"),
    ("epochs: 40", "epochs: true", "11:11: represent.epochs: ", "integer, got true"),
    ("epochs: 40", "epochs:", "11:3: represent.epochs: ", "integer, got nothing"),
    ("epochs: 40", "epochs: [1, 2]", "11:11: represent.epochs: ", "integer, got [1, 2]"),
    ("experiment: ltrec", "experiment: 7", "25:15: tracking.experiment: ", "string, got 7"),
    ("experiment: ltrec", "experiment: a/b", "25:15: tracking.experiment: ", """'^[^/:'"]+$', got a/b"""),
    (
        "{name: cifar_resnet8}",
        "{name: resnet18, weights: 1}",
        "8:39: represent.backbone.weights: ",
        "string or null, got 1",
    ),
    ("size: 16, resize: 16", "size: 16, mean: 0.5", "9:27: represent.image.mean: ", "list or null, got 0.5"),
    ("{name: cifar_resnet8}", "resnet50", "8:13: represent.backbone: ", "mapping with name, got resnet50; allowed: "),
    ("  views: 0", "  3", "13:3: featurize: ", "mapping, got 3; allowed: views, batch_size, precision, workers"),
    # Numbers that are none
    ("    lr: 0.1", "    lr: '1e-3'", "18:9: rebalance.crt.lr: ", "number, got '1e-3'"),
    ("    lr: 0.1", "    lr: nan", "18:9: rebalance.crt.lr: ", "number, got nan"),
    ("    lr: 0.1", "    lr: .nan", "18:9: rebalance.crt.lr: ", "finite number, got .nan"),
    ("    lr: 0.1", "    lr: .inf", "18:9: rebalance.crt.lr: ", "finite number, got .inf"),
    ("    lr: 0.1", "    lr: 1e400", "18:9: rebalance.crt.lr: ", "finite number, got 1e400"),
    ("lr: 0.1, weight", "lr: 0,1, weight", "10:32: represent.optimizer: ", "got 1; a decimal takes a point"),
    # Out of bounds
    ("    lr: 0.1", "    lr: -1E-3", "18:9: rebalance.crt.lr: ", "greater than 0, got -1E-3"),
    ("    lr: 0.1", "    lr: 1e39", "18:9: rebalance.crt.lr: ", "less than or equal to 1000"),
    ("seed: 0", "seed: -1", "1:7: seed: ", "greater than or equal to 0, got -1"),
    ("seed: 0", "seed: 4294967296", "1:7: seed: ", "less than 4294967296, got 4294967296"),
    ("[0, 0.5, 1]", "[0, -0.5, 1]", "19:37: rebalance.tau.taus[1]: ", "greater than or equal to 0, got -0.5"),
    ("[0, 0.5, 1]", "[]", "19:33: rebalance.tau.taus: ", "at least 1 item, not 0, got []"),
    ("size: 16, resize: 16", "size: 16, mean: [0, 0]", "9:21: represent.image.mean[2]: ", "missing"),
    ("size: 16, resize: 16", "size: 16, mean: [0, 0, 0, 0]", "9:27: represent.image.mean: ", "at most 3 items"),
    # Names
    ("device: auto", "device: gpu", "2:9: device: ", "'auto', 'cpu' or 'cuda', got gpu (did you mean cpu?)"),
    (
        "cifar_resnet8",
        "resnet51",
        "8:20: represent.backbone.name: ",
        "unknown name, got resnet51 (did you mean resnet50?); allowed: resnet50, resnet18, resnet10 and 86 more",
    ),
    (
        "cifar_resnet8",
        "timm/vit_smal_patch14_dinov2.lvd142m",
        "8:20: represent.backbone.name: ",
        "(did you mean timm/vit_small_patch14_dinov2.lvd142m?); near: timm/vit_small_patch14_dinov2.lvd142m, timm/",
    ),
    (
        "cifar_resnet8",
        "timm/vit_small_patch14_dinov2.lvd143m",
        "8:20: represent.backbone.name: ",
        "(did you mean timm/vit_small_patch14_dinov2.lvd142m?); allowed: timm/vit_small_patch14_dinov2, timm/vit_",
    ),
    (
        "cifar_resnet8",
        "vit_small_patch14_dinov2.lvd142m",
        "8:20: represent.backbone.name: ",
        "timm's names begin with timm/, got vit_small_patch14_dinov2.lvd142m (did you mean timm/vit_small_patch14_dino",
    ),
    ("cifar_resnet8", "timm/", "8:20: represent.backbone.name: ", "no network of this name, got timm/; "),
    (
        "{name: cifar_resnet8}",
        "{name: timm/convnext_tiny, weights: DEFAULT}",
        "8:49: represent.backbone: ",
        "weights must be pretrained, a file (.pth, .pt, .safetensors) or null, got 'DEFAULT'",
    ),
    (
        "{name: cifar_resnet8}",
        "{name: timm/convnext_atto_rms, weights: pretrained}",
        "8:53: represent.backbone: ",
        "weights must be a file (.pth, .pt, .safetensors) or null, got pretrained: timm publishes none for",
    ),
    (
        "{name: cifar_resnet8}",
        "{name: timm/convnext_tiny, size: 3}",
        "8:40: represent.backbone.size: ",
        "unknown key; allowed: weights, name",
    ),
    (
        "{name: cifar_resnet8}",
        "{name: timm/convnext_tiny, weights: 1}",
        "8:49: represent.backbone.weights: ",
        "string or null, got 1",
    ),
    (
        "{method: joint}",
        "{method: joined}",
        "15:19: rebalance.joint.method: ",
        "unknown name, got joined (did you mean joint?); allowed: joint and ",
    ),
    (
        "kind: folder, root: data",
        "kind: cifar, root: data",
        "4:18: prepare.source.kind: ",
        "unknown name, got cifar (did you mean cifar10?); allowed: cifar10, cifar100, coco_camera_traps, csv, folder, ",
    ),
    (
        "epochs: 40",
        "epochs: 40\n  freeze: {by: layer, modules: [layer1]}",
        "12:16: represent.freeze.by: ",
        "unknown name, got layer; allowed: depth, name",
    ),
    # Names of variants
    *(
        ("  crt:", f"  {key}:", f"16:3: rebalance.{shown}: ", "not a name for a variant; allowed: lower-case letters")
        for key, shown in {"c@t": "'c@t'", "a.b": "'a.b'", "${x}": "'${x}'", "CRT": "CRT", '""': "''", "é": "é"}.items()
    ),
    ("  crt:", "  champion:", "16:3: rebalance.champion: ", "the outputs use it; taken are champion, champion_"),
    # Keys that are no text or that are there already
    ("  crt:", "  1:", "16:3: rebalance: ", "a key must be text, got 1; write it in quotes"),
    ("  crt:", "  true:", "16:3: rebalance: ", "a key must be text, got true; write it in quotes"),
    ("joint: {method: joint}", "joint: {{method}}", "15:11: rebalance.joint: ", "a key must be text"),
    ("  crt:", "  joint:", "16:3: rebalance.joint: ", "duplicate key; the first is in line 15"),
    ("epochs: 40", "epochs: 40\n  epochs: 50", "12:3: represent.epochs: ", "duplicate key; the first is in line 11"),
    # Rules
    ("few_below: 20", "few_below: 200", "21:39: evaluate.shots: ", "few_below (200) must not exceed many_above (100)"),
    (
        "evaluate:",
        "evaluate:\n  prefer: simplest\n  bootstrap: 0",
        "21:11: evaluate.prefer: ",
        "simplest needs the standard error of evaluate.bootstrap, got 0; allowed: 1 or more",
    ),
    ("resize: 16", "resize: 8", "9:29: represent.image.resize: ", "must be at least size (16), got 8"),
    ("n_max: 120", "n_max: 12", "6:66: prepare.long_tail: ", "n_max (12) is below imbalance_factor (30)"),
    (
        "{name: cifar_resnet8}",
        "{name: cifar_resnet8, weights: DEFAULT}",
        "8:44: represent.backbone: ",
        "weights must be a file (.pth, .pt, .safetensors) or null, got 'DEFAULT'",
    ),
    (
        "epochs: 40",
        "epochs: 40\n  schedule: {name: step, milestones: [20, 40]}",
        "12:13: represent.schedule: ",
        "has a milestone at 40; all must be below epochs (40)",
    ),
    ("variant: champion", "variant: best", "23:12: export.variant: ", "got best; allowed: champion, joint, crt, tau"),
    ("test: 40", "test: 1.5", "5:26: prepare.split.test: ", "a fraction below 1, got 1.5"),
    # A value of several kinds
    ("val: 10,", "val: 1.5,", "5:16: prepare.split.val: ", "a fraction below 1 or 'test', got 1.5"),
    ("val: 10,", "val: tets,", "5:16: prepare.split.val: ", "number or 'test', got tets"),
    ("val: 10,", "val: -1,", "5:16: prepare.split.val: ", "greater than 0 or 'test', got -1"),
    ("val: 10,", "val: [1],", "5:16: prepare.split.val: ", "number or 'test', got [1]"),
    ("val: 10,", "val: '10',", "5:16: prepare.split.val: ", "number or 'test', got '10'"),
    ("test: 40", "test: test", "5:26: prepare.split.test: ", "number, got test"),
    ("test: 40", "test: 40, group: 'patient('", "5:30: prepare.split.group.pattern: ", "position 7), got patient("),
    ("test: 40", "test: 40, group: {by: column}", "5:30: prepare.split.group.column: ", "missing"),
    ("test: 40", "test: 40, group: {by: bursts}", "5:42: prepare.split.group.by: ", "(did you mean burst?)"),
    ("test: 40", "test: 40, group: {by: burst, secs: 1}", "5:49: prepare.split.group.secs: ", "allowed: by, seconds"),
    ("test: 40", "test: 40, group: {by: column, column: seq}", "5:58: prepare.split.group.column: ", "has no columns"),
    ("test: 40", "test: {share: 1.5}", "5:34: prepare.split.test.share: ", "less than 1, got 1.5"),
    ("test: 40", "test: {share: 0.2, last: 5}", "5:39: prepare.split.test.last: ", "unknown key (did you mean least?)"),
    ("val: 10,", "val: {least: 5},", "5:11: prepare.split.val.share: ", "missing; The expected share"),
    ("val: 10,", "val: {share: 0.1, least: 5, most: 4},", "5:45: prepare.split.val: ", "most (4) must not be below"),
    # YAML
    ("seed: 0", "seed: !!python/name:os.system x", "1:7: not YAML: ", "python/name:os.system"),
    ("seed: 0", "seed: a: b", "1:8: not YAML: ", "mapping values are not allowed here"),
    # Ensembles: of names, of one, of ensembles, of themselves, of what is not there, on images
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "{method: ensemble, members: [joint, crt]}",
        "19:36: rebalance.tau.members: ",
        "should be a mapping from names to settings, such as {ridge: {method: ridge}, …}, or to the alias of a variant",
    ),
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "{method: ensemble, members: {one: {method: crt}}}",
        "19:36: rebalance.tau.members: ",
        "should have at least 2 items, not 1, got {one: {method: crt}}",
    ),
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "{method: ensemble, members: {one: {method: ncm}, two: {method: ensemble, members: {}}}}",
        "19:71: rebalance.tau.members.two.method: ",
        "unknown name, got ensemble; allowed: crt, disalign, ",
    ),
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "&tau {method: ensemble, members: {one: {method: ncm}, two: *tau}}",
        "19:8: not YAML: ",
        "an alias of what it stands in",
    ),
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "{method: ensemble, members: {one: {method: ncm}, two: *none}}",
        "19:62: not YAML: ",
        "undefined alias 'none'",
    ),
    (
        "{method: tau_norm, taus: [0, 0.5, 1]}",
        "{method: ensemble, members: {one: {method: ncm}, two: {method: crt, images: true}}}",
        "19:84: rebalance.tau.members.two.images: ",
        "an ensemble fits its members on the feature bank, got true; allowed: false",
    ),
    ("  views: 0", "\tviews: 0", "13:1: not YAML: ", "indent with spaces, not tabs"),
    ("seed: 0", "seed: *none", "1:7: not YAML: ", "undefined alias 'none'"),
    ("seed: 0", "seed: 0\n---", "2:1: not YAML: ", "expected a single document"),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), BAD)
def test_a_mistake_is_one_line_with_its_place(old: str, new: str, place: str, words: str) -> None:
    assert GOOD.count(old) == 1, "the test replaces one place"
    with pytest.raises(UserError) as error:
        params.parse(GOOD.replace(old, new))
    line = str(error.value)
    assert line.startswith(f"params.yaml:{place}")
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "value", ["&loop [*loop]", "\x07", "[" * 1500, "9" * 5000, "!!binary aGk=", "!!bool x", "!!int ''"]
)
def test_what_python_cannot_hold_is_a_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^params.yaml(:1:\d+)?: not YAML: .*$"):
        params.parse(GOOD.replace("seed: 0", f"seed: {value}"))


def test_of_a_thousand_mistakes_fifty_are_listed() -> None:
    with pytest.raises(UserError) as error:
        params.parse(GOOD + "".join(f"section_{number}: 0\n" for number in range(1000)))
    assert len(error.value.lines) == 51
    assert error.value.lines[-1] == "params.yaml: 150 more mistakes"  # of the two hundred that were looked at


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UserError, match=rf"^params.yaml:2:9: device: .*, got {'x' * 60}…$"):
        params.parse(GOOD.replace("device: auto", f"device: {'x' * 1000}"))


def test_all_mistakes_are_listed_in_the_order_of_the_file() -> None:
    text = GOOD.replace("epochs: 40", "epochs: -1").replace("seed: 0", "seed: x").replace("views: 0", "view: 0")
    with pytest.raises(UserError) as error:
        params.parse(text, "other.yaml")
    places = [line.split(": ")[:2] for line in str(error.value).splitlines()]
    assert places == [
        ["other.yaml:1:7", "seed"], ["other.yaml:11:11", "represent.epochs"], ["other.yaml:13:3", "featurize.view"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "params.yaml: is empty; `ltrec params schema` says what belongs there"),
        ("# nothing\n", "params.yaml: is empty; `ltrec params schema` says what belongs there"),
        ("---\n", "params.yaml:2:1: should be a mapping, got nothing; allowed: seed, "),
        ("- seed\n", "params.yaml:1:1: should be a mapping, got - seed; allowed: seed, "),
        ("seed\n", "params.yaml:1:1: should be a mapping, got seed; allowed: seed, "),
        (
            "rebalance: {}\nrepresent: {backbone: {name: resnet50}}\n",
            "params.yaml:1:12: rebalance: should have at least 1 item, not 0, got {}",
        ),
        ("represent: {backbone: {name: resnet50}}\n", "params.yaml:1:1: rebalance: missing; The variants to compare"),
    ],
)
def test_a_file_without_content_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        params.parse(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spelling", ["1e-3", "1E-3", "1.e-3", "1.0e-03", ".1e-2", "+1e-3", ".001", "0.001"])
def test_every_spelling_of_a_number_is_that_number(spelling: str) -> None:
    parsed = params.parse(GOOD.replace("    lr: 0.1", f"    lr: {spelling}")).rebalance["crt"]
    assert parsed.model_dump()["lr"] == 0.001


def test_a_whole_number_serves_as_a_real_one() -> None:
    assert params.parse(GOOD.replace("lr: 0.1, ", "lr: 1e3, ")).represent.optimizer.lr == 1000
    assert params.parse(GOOD.replace("lr: 0.1, ", "lr: 1, ")).represent.optimizer.lr == 1


def test_good_parameters_are_read() -> None:
    read = params.parse(GOOD)
    assert read.prepare.split.val == 10
    assert read.represent.optimizer.weight_decay == 5e-4
    assert list(read.rebalance) == ["joint", "crt", "tau"]
    assert [settings.method for settings in read.rebalance.values()] == ["joint", "crt", "tau_norm"]


def test_val_may_be_the_test_images() -> None:
    read = params.parse(GOOD.replace("val: 10", "val: test"))
    assert read.prepare.split.val == "test"
    assert params.parse(GOOD.replace("val: 10, test: 40", "val: 0.5, test: 0.4")).prepare.split.val == 0.5


def test_anchors_and_merges_are_followed() -> None:
    text = GOOD.replace("  crt:\n", "  crt: &crt\n").replace("evaluate:", "  slow: {<<: *crt, lr: 0.01}\nevaluate:")
    variants = params.parse(text).rebalance
    assert variants["slow"].model_dump() == variants["crt"].model_dump() | {"lr": 0.01}
    with pytest.raises(UserError) as error:
        params.parse(text.replace("lr: 0.01", "lr: -1"))
    assert str(error.value) == "params.yaml:20:24: rebalance.slow.lr: should be greater than 0, got -1"
    with pytest.raises(
        UserError, match=r"^params.yaml:20:27: rebalance.slow.lr: duplicate key; the first is in line 20$"
    ):
        params.parse(text.replace("lr: 0.01", "lr: 1, lr: 2"))


def test_the_members_of_an_ensemble_may_be_aliases_of_variants() -> None:
    text = GOOD.replace("  crt:\n", "  crt: &crt\n")
    text = text.replace("evaluate:", "  both: {method: ensemble, members: {crt: *crt, ncm: {method: ncm}}}\nevaluate:")
    variants = params.parse(text).rebalance
    assert isinstance(variants["both"], EnsembleSettings)
    assert variants["both"].members["crt"] == variants["crt"]


def test_a_mistake_in_merged_keys_is_placed_where_they_are_written() -> None:
    text = GOOD.replace("  crt:\n", "  crt: &crt\n").replace("evaluate:", "  slow: {<<: *crt, epochs: 2}\nevaluate:")
    with pytest.raises(UserError) as error:
        params.parse(text.replace("    lr: 0.1", "    lr: -1"))
    assert [line.split(": ")[:2] for line in str(error.value).splitlines()] == [
        ["params.yaml:18:9", "rebalance.crt.lr"], ["params.yaml:18:9", "rebalance.slow.lr"],
    ]  # fmt: skip


def test_an_anchor_may_be_used_again() -> None:
    text = GOOD.replace("epochs: 40", "epochs: &n 40").replace("views: 0", "views: &n 2\n  workers: *n")
    assert params.parse(text).featurize.workers == 2


def test_a_date_is_text() -> None:
    assert params.parse(GOOD.replace("experiment: ltrec", "experiment: 2026-13-45")).tracking.experiment == "2026-13-45"


def test_all_parameters_survive_a_round_trip_through_yaml() -> None:
    read = params.parse(GOOD)
    text = io.StringIO()
    YAML().dump(json.loads(read.model_dump_json()), text)
    assert params.parse(text.getvalue()) == read


def test_parameters_cannot_be_changed_after_the_check() -> None:
    read = params.parse(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        read.seed = 1  # type: ignore[misc]


def test_the_projects_own_parameters_are_good() -> None:
    params.load(REPOSITORY / "params.yaml")


def test_the_committed_schema_is_current() -> None:
    committed = (REPOSITORY / "ltrec" / "config" / "params.schema.json").read_text(encoding="utf-8")
    assert committed == params.schema_text(), "run `ltrec params schema > ltrec/config/params.schema.json`"


def test_params_yaml_names_the_schema() -> None:
    first = (REPOSITORY / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=ltrec/config/params.schema.json"


def test_the_schema_describes_and_closes_every_section() -> None:
    schema = params.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$defs"]["FeaturizeSettings"]["properties"]["views"]["description"].startswith("Augmented views")
    assert schema["$defs"]["TauNormSettings"]["required"] == ["method"]
    assert "name" in schema["$defs"]["ClassBalanced"]["required"], "a member of a union is told by its name"
    for section in [schema, *(definition for definition in schema["$defs"].values() if "properties" in definition)]:
        assert section["additionalProperties"] is False
        assert section["description"], f"{section['title']} has no docstring"


def test_the_schema_knows_the_names_of_variants() -> None:
    variants: dict[str, Any] = params.json_schema()["properties"]["rebalance"]
    assert variants["minProperties"] == 1
    assert variants["propertyNames"] == {"pattern": "^[a-z][a-z0-9_-]{0,49}$"}
