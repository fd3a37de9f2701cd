"""Good and bad parameters; every message is asserted whole, with line and column."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ltrec.config import params
from ltrec.errors import UserError

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
SECTIONS = "seed, device, prepare, represent, featurize, rebalance, evaluate, export, tracking"
METHODS = "crt, joint, learnable_tau, lws, ncm, published, tau_norm"
NAME_RULE = "not a name for a variant; allowed: lower-case letters, digits, _ and -, a letter first, at most 50"

# What is replaced in GOOD, by what, and the line that must come.
LR = "a number above 0 and at most 1e+38"
BAD = [
    # Unknown keys
    ("seed: 0", "seeds: 0", f"1:1: seeds: unknown key (did you mean seed?); allowed: {SECTIONS}"),
    (
        "lr: 0.1, weight_decay",
        "lr: 0.1, decay: 1, weight_decay",
        (
            "10:35: represent.optimizer.decay: unknown key (did you mean weight_decay?);"
            " allowed: lr, momentum, weight_decay, name, head_lr, nesterov"
        ),
    ),
    ("{name: sgd, lr: 0.1, ", "{lr: 0.1, ", "10:3: represent.optimizer.name: missing; allowed: adamw, sgd"),
    (
        "epochs: 40",
        "epochs: 40\n  schedule: {name: step, milestones: [20, 40]}",
        "12:13: represent.schedule: has a milestone at 40; all must be below epochs (40)",
    ),
    (
        "epochs: 40",
        "epochs: 40\n  freeze: {by: layer, modules: [layer1]}",
        "12:16: represent.freeze.by: unknown name, got layer; allowed: depth, name",
    ),
    (
        "{name: cifar_resnet8}",
        "{name: cifar_resnet8, weights: DEFAULT}",
        "8:44: represent.backbone: weights must be a file (.pth, .pt, .safetensors) or null, got 'DEFAULT'",
    ),
    # Wrong types
    (
        "epochs: 40",
        "epochs: forty",
        "11:11: represent.epochs: wrong type, got forty; allowed: a whole number above 0",
    ),
    (
        "epochs: 40",
        "epochs: 40.0",
        "11:11: represent.epochs: wrong type, got 40.0; allowed: a whole number above 0; write 40",
    ),
    ("epochs: 40", "epochs: 2.5", "11:11: represent.epochs: wrong type, got 2.5; allowed: a whole number above 0"),
    ("epochs: 40", "epochs: true", "11:11: represent.epochs: wrong type, got true; allowed: a whole number above 0"),
    ("epochs: 40", "epochs:", "11:3: represent.epochs: wrong type, got nothing; allowed: a whole number above 0"),
    (
        "epochs: 40",
        "epochs: [1, 2]",
        "11:11: represent.epochs: wrong type, got a list of 2; allowed: a whole number above 0",
    ),
    (
        "experiment: ltrec",
        "experiment: 7",
        (
            "25:15: tracking.experiment: wrong type, got 7; allowed: text of at most 200 characters"
            """ that matches ^[^/:'"]+$; write '7' in quotes"""
        ),
    ),
    (
        "experiment: ltrec",
        "experiment: a/b",
        (
            "25:15: tracking.experiment: not allowed, got a/b; allowed: text of at most 200 characters"
            """ that matches ^[^/:'"]+$"""
        ),
    ),
    (
        "{name: cifar_resnet8}",
        "{name: resnet18, weights: 1}",
        "8:39: represent.backbone.weights: wrong type, got 1; allowed: text or null; write '1' in quotes",
    ),
    (
        "{size: 16, resize: 16}",
        "{size: 16, mean: 0.5}",
        "9:27: represent.image.mean: wrong type, got 0.5; allowed: a list of 3, each a number at least 0 and at most 1",
    ),
    (
        "{name: cifar_resnet8}",
        "resnet50",
        (
            "8:13: represent.backbone: wrong type, got resnet50; allowed: a mapping with name: alexnet, cifar_resnet20,"
            " cifar_resnet32 and 85 more (`ltrec params schema` lists them); write {name: resnet50}"
        ),
    ),
    # Numbers that are none
    (
        "    lr: 0.1",
        "    lr: '1e-3'",
        f"18:9: rebalance.crt.lr: wrong type, got '1e-3'; allowed: {LR}; write 1e-3 without quotes",
    ),
    (
        "    lr: 0.1",
        "    lr: nan",
        f"18:9: rebalance.crt.lr: wrong type, got nan; allowed: {LR}",
    ),
    (
        "    lr: 0.1",
        "    lr: .nan",
        f"18:9: rebalance.crt.lr: not a finite number, got .nan; allowed: {LR}",
    ),
    (
        "    lr: 0.1",
        "    lr: .inf",
        f"18:9: rebalance.crt.lr: not a finite number, got .inf; allowed: {LR}",
    ),
    (
        "    lr: 0.1",
        "    lr: 1e400",
        f"18:9: rebalance.crt.lr: not a finite number, got 1e400; allowed: {LR}",
    ),
    (
        "lr: 0.1, weight",
        "lr: 0,1, weight",
        "10:32: represent.optimizer: a key must be text, got 1; a decimal takes a point, not a comma",
    ),
    # Out of bounds
    (
        "    lr: 0.1",
        "    lr: -1E-3",
        f"18:9: rebalance.crt.lr: out of range, got -1E-3; allowed: {LR}",
    ),
    (
        "seed: 0",
        "seed: -1",
        "1:7: seed: out of range, got -1; allowed: a whole number at least 0 and below 4294967296",
    ),
    (
        "taus: [0, 0.5, 1]",
        "taus: [0, -0.5, 1]",
        "19:37: rebalance.tau.taus[1]: out of range, got -0.5; allowed: a number at least 0 and at most 10",
    ),
    (
        "taus: [0, 0.5, 1]",
        "taus: []",
        (
            "19:33: rebalance.tau.taus: too few entries, got a list without entries;"
            " allowed: a list of at least 1, each a number at least 0 and at most 10"
        ),
    ),
    # Names
    ("device: auto", "device: gpu", "2:9: device: unknown name, got gpu (did you mean cpu?); allowed: auto, cpu, cuda"),
    (
        "cifar_resnet8",
        "resnet51",
        (
            "8:20: represent.backbone.name: unknown name, got resnet51 (did you mean resnet50?);"
            " allowed: resnet50, resnet18, resnet10 and 85 more (`ltrec params schema` lists them)"
        ),
    ),
    (
        "{method: joint}",
        "{method: joined}",
        f"15:19: rebalance.joint.method: unknown name, got joined (did you mean joint?); allowed: {METHODS}",
    ),
    ("    method: crt\n", "", f"16:3: rebalance.crt.method: missing; allowed: {METHODS}"),
    (
        "  backbone: {name: cifar_resnet8}\n",
        "",
        (
            "7:1: represent.backbone: missing; allowed: a mapping with name: alexnet, cifar_resnet20, cifar_resnet32"
            " and 85 more (`ltrec params schema` lists them)"
        ),
    ),
    # Names of variants
    ("  crt:", "  c@t:", f"16:3: rebalance.'c@t': {NAME_RULE}"),
    ("  crt:", "  a/b:", f"16:3: rebalance.'a/b': {NAME_RULE}"),
    ("  crt:", "  a.b:", f"16:3: rebalance.'a.b': {NAME_RULE}"),
    ("  crt:", "  ${x}:", f"16:3: rebalance.'${{x}}': {NAME_RULE}"),
    ("  crt:", "  CRT:", f"16:3: rebalance.CRT: {NAME_RULE}"),
    ("  crt:", '  "":', f"16:3: rebalance.'': {NAME_RULE}"),
    ("  crt:", "  crt\u00e9:", f"16:3: rebalance.crt\u00e9: {NAME_RULE}"),
    (
        "  crt:",
        "  champion:",
        (
            "16:3: rebalance.champion: not a name for a variant: the outputs use it;"
            " taken are champion, class, label, selected_on, shot, test, train, val"
        ),
    ),
    ("  crt:", "  1:", "16:3: rebalance: a key must be text, got 1; write it in quotes"),
    ("  crt:", "  true:", "16:3: rebalance: a key must be text, got true; write it in quotes"),
    # Duplicates
    ("  crt:", "  joint:", "16:3: rebalance.joint: duplicate key; the first is in line 15"),
    ("epochs: 40", "epochs: 40\n  epochs: 50", "12:3: represent.epochs: duplicate key; the first is in line 11"),
    # Rules across fields
    (
        "few_below: 20",
        "few_below: 200",
        "21:39: evaluate.shots: few_below (200) must not exceed many_above (100)",
    ),
    ("resize: 16", "resize: 8", "9:29: represent.image: resize must be at least size (16), got 8"),
    (
        "val: 10,",
        "val: 1.5,",
        "5:16: prepare.split.val: must be a whole number of images a class, or a fraction below 1, got 1.5",
    ),
    # A value of several kinds
    ("val: 10,", "val: tets,", "5:16: prepare.split.val: wrong type, got tets; allowed: a number above 0 or test"),
    ("val: 10,", "val: -1,", "5:16: prepare.split.val: out of range, got -1; allowed: a number above 0 or test"),
    (
        "val: 10,",
        "val: [1],",
        "5:16: prepare.split.val: wrong type, got a list of 1; allowed: a number above 0 or test",
    ),
    (
        "val: 10,",
        "val: '10',",
        "5:16: prepare.split.val: wrong type, got '10'; allowed: a number above 0 or test; write 10 without quotes",
    ),
    ("test: 40", "test: test", "5:26: prepare.split.test: wrong type, got test; allowed: a number above 0"),
    (
        "kind: folder, root: data",
        "kind: cifar, root: data",
        (
            "4:18: prepare.source.kind: unknown name, got cifar (did you mean cifar10?);"
            " allowed: cifar10, cifar100, csv, folder, imagefolder, imagenet, inaturalist, lists, places365"
        ),
    ),
    (
        "n_max: 120",
        "n_max: 12",
        "6:66: prepare.long_tail: n_max (12) is below imbalance_factor (30): the rarest class would keep no image",
    ),
    (
        "variant: champion",
        "variant: best",
        "23:12: export.variant: no such variant in rebalance, got best; allowed: champion, joint, crt, tau",
    ),
    # YAML
    ("seed: 0", "seed: !!python/name:os.system x", "1:7: seed: the tag !!python/name:os.system is not allowed"),
    ("seed: 0", "seed: &loop [*loop]", "1:7: seed[0]: the value contains itself"),
    ("seed: 0", "seed: a: b", "1:8: not YAML: mapping values are not allowed here"),
    (
        "  views: 0",
        "\tviews: 0",
        (
            "13:1: not YAML: while scanning for the next token found character '\\t' that cannot start any token;"
            " indent with spaces, not tabs"
        ),
    ),
    ("seed: 0", "seed: \x07", "1:7: not YAML: the character U+0007 is not allowed"),
]


@pytest.mark.parametrize(("old", "new", "line"), BAD, ids=[line for _, _, line in BAD])
def test_a_mistake_is_one_line_with_its_place(old: str, new: str, line: str) -> None:
    assert GOOD.count(old) == 1, "the test replaces one place"
    with pytest.raises(UserError) as error:
        params.parse(GOOD.replace(old, new))
    assert str(error.value) == f"params.yaml:{line}"


def test_all_mistakes_are_listed_in_the_order_of_the_file() -> None:
    text = GOOD.replace("epochs: 40", "epochs: 0").replace("seed: 0", "seed: x").replace("views: 0", "view: 0")
    with pytest.raises(UserError) as error:
        params.parse(text, "other.yaml")
    assert str(error.value).splitlines() == [
        "other.yaml:1:7: seed: wrong type, got x; allowed: a whole number at least 0 and below 4294967296",
        "other.yaml:11:11: represent.epochs: out of range, got 0; allowed: a whole number above 0",
        "other.yaml:13:3: featurize.view: unknown key (did you mean views?); allowed: views, batch_size, workers",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "params.yaml: is empty; `ltrec params schema` says what belongs there"),
        ("# nothing\n", "params.yaml: is empty; `ltrec params schema` says what belongs there"),
        ("- seed\n", "params.yaml:1:1: must be a mapping of sections, got a list"),
        ("seed\n", "params.yaml:1:1: must be a mapping of sections, got text"),
        (
            "rebalance: {}\nrepresent: {backbone: {name: resnet50}}\n",
            (
                "params.yaml:1:12: rebalance: too few entries, got a mapping without entries;"
                " allowed: a mapping with at least one entry"
            ),
        ),
        (
            "represent: {backbone: {name: resnet50}}\n",
            "params.yaml:1:1: rebalance: missing; allowed: a mapping with at least one entry",
        ),
    ],
)
def test_a_file_without_content_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        params.parse(text)
    assert str(error.value) == message


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
    assert str(error.value).startswith("params.yaml:20:24: rebalance.slow.lr: out of range, got -1;")


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
