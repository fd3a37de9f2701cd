"""docs/scaling.md: its scripts parse, and name only what is there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ltrec.cli.commands import app
from ltrec.models.backbones import TorchvisionBackbone

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_manifest_starts_a_stage_under_torchrun() -> None:
    (manifest,) = blocks("yaml")
    service, job = YAML(typ="safe").load_all(manifest)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    assert container["command"] == ["torchrun"]
    assert container["args"][-3:] == ["-m", "ltrec", "represent"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_commands_and_parameters_exist() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"-m ltrec (\w+)", PAGE)) <= commands
    schema = json.loads((ROOT / "ltrec/config/params.schema.json").read_text(encoding="utf-8"))
    for section, key in re.findall(r"`(represent|featurize|prepare)\.(\w+)", PAGE):
        properties: dict[str, Any] = schema["$defs"][f"{section.capitalize()}Settings"]["properties"]
        assert key in properties, f"{section}.{key}"


def test_derived_figures_by_formula() -> None:
    sizes = {"ImageNet-LT": (115_846, 1000), "iNaturalist 2018": (437_513, 8142), "10^8 images": (10**8, 10**4)}
    rows = {cells[1].strip(): [cell.strip() for cell in cells[3:6]] for cells in
            (line.split("|") for line in PAGE.splitlines() if line.startswith("| "))}  # fmt: skip
    backbone = sum(
        p.numel() for p in TorchvisionBackbone(name="resnext50_32x4d").build(224, pretrained=False).parameters()
    )

    def figures(text: str) -> list[float]:
        unit = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
        return [float(value) * unit[name] for value, name in re.findall(r"([\d.]+) ([MGT]B)", text)]

    for place, (images, classes) in enumerate(sizes.values()):
        parameters = backbone + classes * 2049
        expected = {
            "train's feature bank, V = 1": 4 * images * 2048,
            "… with the default V = 5": 4 * 5 * images * 2048,
            "a linear head": 4 * classes * 2049,
            "gradients a step, ResNeXt-50": 4 * parameters,
            "… moved by each GPU": 2 * 15 / 16 * 4 * parameters,
            "resume state": 8 * parameters,
        }
        for row, value in expected.items():
            assert figures(rows[row][place]) == [pytest.approx(value, rel=0.02)], (row, place)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
