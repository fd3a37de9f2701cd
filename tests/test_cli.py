"""The command line as a user meets it: exit codes, one line for a mistake, nothing heavy before it is needed."""

from __future__ import annotations

import os
import pkgutil
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from ltrec import __version__, cli, stages
from ltrec.config.params import Params
from tests.commands import ltrec

REPOSITORY = Path(__file__).parents[1]
STAGES = ["prepare", "represent", "featurize", "rebalance", "evaluate", "export"]

# A command that waits, to be interrupted.
WAITING = """
import sys, time
from ltrec.cli import app, main

@app.command()
def wait():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

sys.argv = ["ltrec", "wait"]
main()
"""


def python(code: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_stage_command_module_section_and_dvc_stage_share_a_name() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    pipeline = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    assert [name for name in commands if name in STAGES] == STAGES
    parts_of_stages = ["bank_findings", "deployment", "recording"]
    assert sorted(module.name for module in pkgutil.iter_modules(stages.__path__)) == sorted(STAGES + parts_of_stages)
    assert [
        name for name in Params.model_fields if name not in {"seed", "device", "deterministic", "tracking"}
    ] == STAGES
    assert list(pipeline) == STAGES
    for name, stage in pipeline.items():
        command = stage.get("cmd") or stage["do"]["cmd"]
        assert command.split()[:3] == ["exec", "ltrec", name], "no shell stands between dvc and the stage"
        tags = re.findall(r'stage_run\(params, "(\w+)"', (REPOSITORY / "ltrec" / "stages" / f"{name}.py").read_text())
        assert name in tags or not tags, "the MLflow tag is the stage's name"


def test_version_and_help(tmp_path: Path) -> None:
    assert ltrec("--version", cwd=tmp_path).stdout == f"ltrec {__version__}\n"
    text = ltrec("--help", cwd=tmp_path)
    assert text.returncode == 0
    for command in [
        *STAGES, "predict", "run", "seeds", "version", "sync", "init", "checkpoint", "data", "features", "params",
    ]:  # fmt: skip
        assert re.search(rf"^  {command} +\w[^…]*\.$", text.stdout, re.MULTILINE), f"{command} has a help line"
    assert "..." not in text.stdout.partition("Commands:")[2], "no help line is cut"


@pytest.mark.slow
def test_the_installed_command_and_the_module_are_the_same(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("ltrec"))
    for command in ([script], [sys.executable, "-m", "ltrec"]):
        done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == f"ltrec {__version__}\n"


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    shown = ltrec(cwd=tmp_path)
    assert shown.stdout + shown.stderr == ltrec("--help", cwd=tmp_path).stdout
    assert shown.returncode == 2


NO_PARAMS = ("params.yaml: no such file", "--params")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("represnt", ("'represnt'", "Did you mean 'represent'?", "`ltrec --help`")),
        ("represent --fast", ("--fast", "`ltrec represent --help`")),
        ("represent --quiet", ("--quiet stands before the command", "`ltrec --quiet represent`")),
        ("rebalance", ("'VARIANT'", "`ltrec rebalance --help`")),
        ("export --precision fp8", ("'--precision'", "'fp8'", "'fp32', 'fp16', 'int8'", "`ltrec export --help`")),
        ("--quiet --verbose sync", ("--quiet and --verbose exclude each other",)),
        *[(f"{stage}{' crt' if stage == 'rebalance' else ''}", NO_PARAMS) for stage in STAGES],
        ("--params mine.yaml params check", ("mine.yaml: no such file", "--params")),
        ("checkpoint import", ("'FILE'", "`ltrec checkpoint import --help`")),
        ("checkpoint import model.pth", NO_PARAMS),
        (
            "checkpoint export --format onnx",
            ("'--format'", "'onnx'", "'decoupling'", "`ltrec checkpoint export --help`"),
        ),
        ("features import val.pkl", ("'--split'", "train, val, test", "`ltrec features import --help`")),
        (
            "features import val.pkl --split val",
            ("artifacts/represent/model.safetensors: no such file", "`ltrec checkpoint import`"),
        ),
        ("predict digit.png", ("artifacts/export/model.onnx: no such model file", "`ltrec export --onnx`")),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: str, words: tuple[str, ...], tmp_path: Path) -> None:
    done = ltrec(*arguments.split(), cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [word for word in words if word not in done.stderr] == []


def test_every_mistake_in_the_params_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: -1\nrepresent: {backbone: {name: resnet50}}\nrebalance: {}\n")
    done = ltrec("represent", cwd=tmp_path)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: params.yaml:1:7: seed: ")
    assert "got -1" in first
    assert second.startswith("error: params.yaml:3:12: rebalance: ")


def test_places_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("# 💯\n" * 99 + "seeds: 0\n")
    assert "params.yaml:100:1: seeds: unknown key" in ltrec("params", "check", cwd=tmp_path).stderr


@pytest.mark.slow
def test_nothing_heavy_is_imported_for_help_and_mistakes(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: -1\n")
    for name in ("convnext_tiny", "convnext_tny"):
        text = f"represent: {{backbone: {{name: timm/{name}}}}}\nrebalance: {{a: {{method: joint}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    commands = ["--help", "represnt", "params check", "represent", "rebalance --help", "checkpoint import model.pth"]
    commands += ["--params convnext_tiny.yaml params check", "--params convnext_tny.yaml params check"]
    code = f"""
import contextlib, sys
from ltrec.cli import main
for arguments in {commands!r}:
    sys.argv = ["ltrec", *arguments.split()]
    with contextlib.suppress(SystemExit):
        main()
    heavy = {{"torch", "torchvision", "mlflow", "matplotlib", "sklearn", "scipy", "pandas", "onnx", "onnxruntime"}}
    heavy |= {{"timm", "huggingface_hub"}}
    print("HEAVY:", sorted(heavy & set(sys.modules)))
"""
    output = python(code, tmp_path).communicate(timeout=60)[0]
    assert re.findall(r"^HEAVY: (.*)$", output, re.MULTILINE) == ["[]"] * len(commands)


def test_params_check(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(
        "represent: {backbone: {name: resnet50}}\nrebalance: {a: {method: joint}, b: {method: ncm}}\n"
    )
    done = ltrec("--params", "good.yaml", "params", "check", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "good.yaml: ok, 2 variants: a, b\n", 0)
    assert ltrec("--quiet", "--params", "good.yaml", "params", "check", cwd=tmp_path).stderr == ""
    resolved = ltrec("--params", "good.yaml", "params", "check", "--resolved", cwd=tmp_path).stdout
    assert Params.model_validate_json(resolved).represent.epochs == 90


@pytest.mark.slow
def test_a_hostile_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("represent: {backbone: {name: resnet50}}\nrebalance: {a: {method: joint}}\n")
    code = """
import os, torch
class Hostile:
    def __reduce__(self):
        return os.system, ("touch mark",)
torch.save({"state_dict_best": Hostile()}, "model.pth")
"""
    assert python(code, tmp_path).communicate(timeout=60)[1] == ""
    done = ltrec("checkpoint", "import", "model.pth", cwd=tmp_path)
    line = "error: model.pth: refused before any code of it ran: it names posix.system; only tensors, NumPy arrays,"
    assert (done.stdout, done.stderr, done.returncode) == ("", f"{line} numbers, text, lists and dicts are read\n", 2)
    assert not (tmp_path / "mark").exists()


def test_params_schema_is_the_committed_one(tmp_path: Path) -> None:
    printed = ltrec("params", "schema", cwd=tmp_path).stdout
    assert printed == (REPOSITORY / "ltrec" / "config" / "params.schema.json").read_text(encoding="utf-8")


def test_data_digits_writes_where_it_is_told(tmp_path: Path) -> None:
    assert ltrec("data", "digits", "--root", "numbers", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "numbers").rglob("*.png"))) == 1797


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_data_cifar_names_a_damaged_archive_in_one_line(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "data" / f"{name.replace('cifar', 'cifar-')}-python.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"half of it")
    done = ltrec("data", name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {archive}: is damaged: its MD5 sum is not the published")
    assert done.stderr.count("\n") == 1


def test_prepare_without_opening_an_image(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "represent: {backbone: {name: cifar_resnet8}}\nrebalance: {joint: {method: joint}}\n"
    )
    for path in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png"):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).touch()
    assert "no image could be read" in ltrec("prepare", cwd=tmp_path).stderr
    assert ltrec("prepare", "--no-decode", cwd=tmp_path).returncode == 0
    assert (tmp_path / "artifacts/prepare/train.txt").read_text().count("\n") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "warning: interrupted\n")]
)
def test_a_signal_ends_it_in_order(number: signal.Signals, code: int, said: str, tmp_path: Path) -> None:
    process = python(WAITING, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("cleaned up\n", said, code)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells a child of its parent's death")
def test_a_stage_ends_when_dvc_is_killed(tmp_path: Path) -> None:
    dvc = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}])"
    process = python(dvc, tmp_path, DVC_STAGE="represent")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.communicate(timeout=30)[0] == "cleaned up\n"


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    code = """
import sys
from ltrec.cli import app, main

@app.command()
def stumble():
    raise ZeroDivisionError("a bug")

sys.argv = ["ltrec", "stumble"]
main()
"""
    process = python(code, tmp_path)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("ZeroDivisionError: a bug\n")


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from ltrec.cli import main; sys.argv = ['ltrec', 'params', 'schema']; main()"
    process = python(code, tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "errors"),
    [
        ("params schema >&-", 2, "error: stdout is closed, but this command reads or writes there\n"),
        ("params schema >/dev/full", 2, "error: No space left on device\n"),
        ("init --list >&-", 2, "error: stdout is closed, but this command reads or writes there\n"),
        ("params check >&- <&-", 2, "error: params.yaml: no such file"),
        ("params check 2>&-", 2, ""),
        ("params check 2>/dev/full", 2, ""),
        ("data digits >&- 2>&- <&-", 0, ""),
        ("data digits 2>/dev/full", 0, ""),
        ("nonsense 2>&-", 2, ""),
    ],
)
def test_closed_and_full_streams(arguments: str, code: int, errors: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m ltrec {arguments}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert done.stderr.startswith(errors)
    assert done.stderr.count("\n") == bool(errors)


@pytest.mark.slow
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """A file that was opened as number 2 would get what C libraries print."""
    code = "from ltrec import process; process.occupy_closed_streams(); import os; print(open('a', 'w').fileno())"
    command = f'{sys.executable} -c "{code}" <&- 2>&-'
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    printed = subprocess.check_output(["bash", "-c", command], cwd=tmp_path, env=environment, text=True)
    assert int(printed) > 2


def test_a_name_forges_no_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "a\nerror: b\x1b[2J").mkdir(parents=True)
    source = "prepare: {source: {kind: folder, root: data}}\n"
    (tmp_path / "params.yaml").write_text(
        f"{source}represent: {{backbone: {{name: resnet18}}}}\nrebalance: {{joint: {{method: joint}}}}\n"
    )
    for arguments in (["prepare"], ["--params", "a\nerror: b.yaml", "prepare"], ["pre\npare"]):
        done = ltrec(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


@pytest.mark.parametrize("arguments", ["params check", "checkpoint import model.pth --backbone resnet18"])
def test_a_named_pipe_is_one_line_and_not_waited_for(arguments: str, tmp_path: Path) -> None:
    name = "model.pth" if "model" in arguments else "params.yaml"
    (tmp_path / "params.yaml").write_text(
        "represent: {backbone: {name: resnet18}}\nrebalance: {joint: {method: joint}}\n"
    )
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    done = ltrec(*arguments.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {name}: is a named pipe, not a file\n")


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
def test_a_disk_that_takes_nothing_is_one_line(full: bool, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))" if full else ""
    if not full:
        (tmp_path / "numbers").touch()
    command = "sys.argv = 'ltrec data digits --root numbers/own'.split()"
    code = f"import sys; {limit}\nfrom ltrec.cli import main\n{command}\nmain()"
    process = python(code, tmp_path)
    errors = process.communicate(timeout=30)[1]
    assert (errors.count("\n"), process.returncode) == (1, 2)
    assert errors.startswith("error: ")
    assert errors.endswith("File too large\n" if full else "Not a directory\n")


def test_what_dvc_would_miss_is_said_where_dvc_is_used(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "seed: 0\nprepare: {source: {kind: folder, root: data}}\nrepresent: {backbone: {name: cifar_resnet8}}\n"
        "featurize: {}\nrebalance: {joint: {method: joint}}\n"
    )
    assert ltrec("params", "check", cwd=tmp_path).stderr.startswith("params.yaml: ok")
    (tmp_path / "dvc.yaml").touch()
    warning, ok = ltrec("params", "check", cwd=tmp_path).stderr.splitlines()
    assert "wants to find evaluate, evaluate.shots, export in it" in warning
    assert ok.startswith("params.yaml: ok")
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("evaluate: {shots: {}}\nexport: {}\n")
    assert ltrec("params", "check", cwd=tmp_path).stderr.startswith("params.yaml: ok")
