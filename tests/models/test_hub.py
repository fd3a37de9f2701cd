"""Files of the Hugging Face hub: from the cache without a question, else asked for once, else explained."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from ltrec.models import hub

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("model.safetensors", "pytorch_model.bin")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


class Hub:
    """Stands in for the hub: answers for some files, or with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *files: str, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.files, self.error = files, error
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def download(self, repository: str, name: str, revision: str | None) -> str:
        return f"{repository}/{name}@{revision}"

    def metadata(self, url: str) -> None:
        self.asked.append(url)
        if self.error is not None:
            raise self.error
        if not url.endswith(self.files):
            missing: Any = huggingface_hub.errors.EntryNotFoundError
            raise missing("404")


class RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"{status} Client Error")
        self.response = type("Response", (), {"status_code": status})()


def test_what_is_in_the_cache_is_taken_without_asking(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Hub(monkeypatch, error=AssertionError("asked"))
    repository = cache / "models--timm--small.one"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    file = repository / "snapshots" / ("0" * 40) / FILES[1]
    file.parent.mkdir(parents=True)
    file.touch()
    assert hub.fetched("timm/small.one", FILES) == str(file)
    assert nobody.asked == []


@pytest.mark.usefixtures("cache")
def test_the_first_file_that_there_is_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, *FILES)
    assert hub.fetched("timm/small.one", FILES) == "timm/small.one/model.safetensors@None"
    Hub(monkeypatch, FILES[1])
    assert hub.fetched("timm/small.one@v2", FILES) == "timm/small.one/pytorch_model.bin@v2"


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        (ConnectionError("no route to host"), False),
        (LocalEntryNotFoundError("offline"), False),
        (RefusedError(404), False),
        (RefusedError(401), True),
        (RefusedError(403), True),
    ],
)
def test_what_cannot_be_had_is_asked_for_once(
    error: Exception, denied: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Hub(monkeypatch, error=error)
    with pytest.raises(hub.FetchError) as raised:
        hub.fetched("timm/small.one", FILES)
    assert len(asked.asked) == 1
    assert raised.value.wanted == "model.safetensors of https://huggingface.co/timm/small.one"
    assert (raised.value.cache, raised.value.reason, raised.value.denied) == (str(cache), error, denied)


@pytest.mark.usefixtures("cache")
def test_a_repository_without_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch)
    with pytest.raises(hub.FetchError) as raised:
        hub.fetched("timm/small.one", FILES)
    assert "none of model.safetensors, pytorch_model.bin" in str(raised.value.reason)


@pytest.mark.slow
def test_without_a_network_the_line_comes_at_once(tmp_path: Path) -> None:
    code = """
import time
from ltrec.errors import UserError
from ltrec.models.timm_backbones import TimmBackbone
settings = TimmBackbone(name="timm/test_vit.r160_in1k", weights="pretrained")
settings.preprocessing()
start = time.monotonic()
try:
    settings.build(160)
except UserError as error:
    print(error)
print(time.monotonic() - start)
"""
    # Nothing listens on port 9 of this machine.
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    line, seconds = done.stdout.splitlines()
    assert line.startswith("params.yaml: represent.backbone.weights: the weights 'pretrained' could not be fetched (")
    assert "model.safetensors of http://127.0.0.1:9/timm/test_vit.r160_in1k" in line
    assert str(tmp_path) in line
    assert "`weights: FILE`" in line
    assert "null trains from nothing" in line
    assert float(seconds) < 10
