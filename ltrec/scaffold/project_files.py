"""The files of a new project beside its parameters. What exists stays as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ltrec import console, pipeline
from ltrec.errors import UserError
from ltrec.evaluation.figures import TEMPLATES

PARAMS, PIPELINE = Path("params.yaml"), Path("dvc.yaml")
PLOTS = Path(".dvc", "plots")
PAGE = "page.html"
_CHECKOUTS_TEMPLATES = "../../ltrec/evaluation/templates/"
_IGNORED_BY_GIT = (
    "/.ltrec/",
    "# What DVC caches; metrics and plot tables beside it are committed.",
    "/artifacts/version/",
    "/artifacts/prepare/*.txt",
    "/artifacts/**/*.safetensors",
    "/artifacts/evaluate/plots/images/",
    "/artifacts/export/*.onnx",
    "/mlflow.db*",
    "/mlruns/",
    "/mlartifacts/",
    "/dvc_plots/",
)
_IGNORED_BY_DVC = ("# What systems leave in folders of photographs.", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir")
_VERSION_STAGE = """\
  # What is installed: each stage depends on the digest of its own code, so that an upgrade reruns what it changes.
  version:
    cmd: exec ltrec version
    always_changed: true
    outs:
      - artifacts/version

"""


@dataclass(frozen=True)
class NewFile:
    """A file to write, unless it exists."""

    path: Path
    text: str
    lines_count: bool = False
    """Whether an existing file may have these lines among others."""

    def missing_lines(self) -> list[str]:
        """Return the lines that an existing file lacks, comments left out."""
        present = set(self.path.read_text(encoding="utf-8", errors="replace").splitlines())
        return [line for line in self.text.splitlines() if not line.startswith("#") and line not in present]


def require_free(params: Path) -> None:
    """Refuse to begin where the files that the user decides about exist already.

    Raises:
        UserError: There are parameters, or a `dvc.yaml` of something else.
    """
    if params.exists():
        raise UserError(
            "exists and stays as it is; move it away, or name another file with --output", where=str(params)
        )
    if PIPELINE.exists() and not _is_ltrecs(PIPELINE):
        raise UserError(
            "exists and lacks ltrec's stages; begin in an empty folder, or move it away and run the same again",
            where=str(PIPELINE),
        )


def files(data: Path) -> list[NewFile]:
    """Return the files of a project whose images lie in `data`, relative to the project or absolute."""
    inside = not data.is_absolute() and ".." not in data.parts
    pattern = re.sub(r"([\\*?\[ ])", r"\\\1", data.as_posix())
    ignored = [*([f"/{pattern}"] if inside else []), *_IGNORED_BY_GIT]
    return [
        NewFile(PIPELINE, pipeline_text()),
        NewFile(Path(".gitignore"), "".join(f"{line}\n" for line in ignored), lines_count=True),
        NewFile(Path(".dvcignore"), "".join(f"{line}\n" for line in _IGNORED_BY_DVC), lines_count=True),
    ]


def write(new: list[NewFile]) -> list[Path]:
    """Write the files that do not exist, say what existing ones lack, and return what was written."""
    written = []
    for file in new:
        if not file.path.exists():
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.path.write_text(file.text, encoding="utf-8", newline="\n")
            written.append(file.path)
        elif file.lines_count and (missing := file.missing_lines()):
            console.warn(f"init: {file.path} exists and stays as it is; add the lines {'  '.join(missing)}")
    return written


def write_templates() -> None:
    """Write the templates of DVC's plots, and of the page that they stand on, where DVC seeks them."""
    write(
        [NewFile(PLOTS / file.name, file.read_text(encoding="utf-8")) for file in TEMPLATES.iterdir() if file.is_file()]
    )


def pipeline_text() -> str:
    """Return the `dvc.yaml` of a project: that of ltrec's checkout, with digests in place of the modules."""
    lines: list[str] = []
    stage, written = "", ""
    for line in pipeline.definition_text().splitlines(keepends=True):
        if heading := re.match(r"  (\w+):$", line):
            stage = heading[1]
        if dependency := re.match(r"(\s+- )ltrec/", line):
            if written != stage:
                method = "${item.method}" if pipeline.stages()[stage].for_each_variant else None
                lines.append(f"{dependency[1]}{pipeline.digest_file(stage, method).as_posix()}\n")
                written = stage
            continue
        lines.append(line.replace(_CHECKOUTS_TEMPLATES, ""))
        if line == "stages:\n":
            lines.append(_VERSION_STAGE)
    return "".join(lines)


def _is_ltrecs(file: Path) -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(file)
        return set(pipeline.stages()) <= set(content["stages"])
    except (YAMLError, OSError, UnicodeDecodeError, TypeError, KeyError):
        return False
