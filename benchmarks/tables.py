"""Writes the measured figures into docs/performance.md, between its markers; GPU rows stay empty until there are some.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
_EMPTY = "–"


def main() -> None:
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def rendered(page: str) -> str:
    """The page with each table made anew from the results."""
    for name, table in {
        "feeding": feeding, "training": training, "classifiers": classifiers, "lists": lists, "startup": startup,
        "int8": int8,
    }.items():  # fmt: skip
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        page = before + start + table() + end + rest.partition(end)[2]
    return page


def results(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measured(of: dict[str, float]) -> str:
    return f"{of['median']:,.0f} ({of['min']:,.0f}–{of['max']:,.0f})"


def seconds(of: dict[str, float]) -> str:
    return f"{of['median']:.2f} ({of['min']:.2f}–{of['max']:.2f})"


def feeding() -> str:
    found = results("feeding") or {}
    names = {
        "reference": "PIL and torchvision's transforms", "bare_decode": "Pillow's decoding alone",
        "ltrec_pillow": "ltrec", "ltrec": "ltrec[fast]",
        "ltrec_cache_jpeg": "ltrec[fast], JPEG copies", "ltrec_cache_raw": "ltrec, raw copies",
    }  # fmt: skip
    rows = [
        [f"{size.replace('x', '×')}, {names[way]}", measured(of), f"{found[size]['to_reference'][way]:.2f}"]
        for size in ("300x200", "500x375", "4000x3000")
        for way, of in found[size]["images_per_cpu_second"].items()
    ]
    device, resident = found["device_part"]["milliseconds_an_image"]["median"], found["resident"]["feed_to_step"]
    return (
        table(["to a square of 224 pixels", "images a CPU second", "to the reference"], rows)
        + f"\nFlip and colour jitter of an image take {device:.2f} ms where the device is this CPU. A resident"
        f" CIFAR-sized set costs {resident:.1%} of a ResNet-32 step to feed.\n"
    )


def training() -> str:
    rows = []
    for name, where in (("training", "2 CPU cores"), ("training-gpu", "GPU")):
        found = results(name)
        if found is None:
            rows.append([f"{where}: not measured yet", _EMPTY, _EMPTY, _EMPTY])
            continue
        machine = found["machine"].get("gpu", where)
        for task in (key for key in found if key != "machine"):
            of = found[task]
            for way in (way for way in of["images_per_second"] if "bare" not in way):
                bare = of["to_bare_steps"].get(way)
                rows.append(
                    [f"{machine}: {task}, {way}", measured(of["images_per_second"][way]),
                     f"{of['to_reference'][way]:.2f}", _EMPTY if bare is None else f"{bare:.1%}"]
                )  # fmt: skip
    return table(["", "images a second", "to the reference", "of its bare steps"], rows)


def classifiers() -> str:
    rows = []
    for name, where in (
        ("classifiers", "ImageNet-LT, 2 CPU cores"), ("classifiers-inat", "iNaturalist 2018, 2 CPU cores"),
        ("classifiers-gpu", "ImageNet-LT, GPU"),
    ):  # fmt: skip
        found = results(name)
        if found is None:
            rows.append([f"{where}: not measured yet", *[_EMPTY] * 5])
            continue
        for method, of in found["seconds"].items():
            rows.append([f"{where}: {method}", *(f"{of[part]:.2f}" for part in ("fit", "judge", "products")), "", ""])
        ratio = found["to_bare_products"]
        rows.append(
            [f"**{where}: all**", "", f"{found['seconds_in_all']:.1f}", f"{found['bare_products_in_all']:.1f}",
             f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})",
             f"{found['peak_memory_beyond_banks_gib']:.2f} GiB"]
        )  # fmt: skip
    return table(["", "fit, s", "judge, s", "bare products, s", "ratio", "peak beyond the banks"], rows)


def lists() -> str:
    of_lists, of_samplers = results("lists") or {}, results("samplers") or {}
    rows = [[name, seconds(of["seconds"]), f"{of['peak_mb']:,}"] for name, of in of_lists["rows"].items()]
    rows += [
        [f"drawing an epoch, {name}", seconds(of["ten_million_seconds"]), f"{of['ten_million_peak_mb']:,}"]
        for name, of in of_samplers["samplers"].items()
    ]
    return table([f"{of_lists['images']:,} images", "s", "peak, MB"], rows)


def startup() -> str:
    found = results("startup") or {}
    commands = [[name, seconds(of)] for name, of in (found["commands"] | found["pipeline"]).items()]
    stages = []
    for stage, of in found["stages"].items():
        parts = {name: part["median"] for name, part in of["parts"].items()}
        torch, ours = parts.get("import torch", 0.0), parts["import ltrec"]
        mlflow = parts.get("tracking starts", 0.0) + parts.get("tracking ends", 0.0)
        rest = of["start"]["median"] - torch - ours - mlflow
        stages.append([stage, seconds(of["start"]), *(f"{part:.2f}" for part in (torch, ours, rest, mlflow))])
    return (
        table(["", "s"], commands)
        + "\n"
        + table(["stage", "all but its work, s", "torch", "ltrec", "other packages, params", "MLflow"], stages)
    )


def int8() -> str:
    kinds = [results("int8") or {}, results("int8-saturating") or {}]
    names = {
        "fp32": "float32", "u8s8": "unsigned activations, signed weights",
        "u8s7": "the same, weights of seven bits (ltrec)", "u8u8": "both unsigned", "s8s8": "both signed",
    }  # fmt: skip
    rows = []
    for scheme, name in names.items():
        row = [name]
        for found in kinds:
            for project in ("cifar", "digits"):
                of = found["projects"][project]["variants"]["crt"][scheme]
                row.append(f"{of['accuracy']:.1%}, {of['agreement']:.1%}")
            row.append(f"{found['resnet18_cpu_milliseconds_an_image'][scheme]['median']:.1f}")
        rows.append(row)
    heads = [f"{figure}, {kind}" for kind in ("VNNI", "AVX2") for figure in ("CIFAR-10-LT", "digits", "ms")]
    return table(["", *heads], rows)


if __name__ == "__main__":
    main()
