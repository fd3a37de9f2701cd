"""The labels of torchvision's ImageFolder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.datasets import ImageFolder

from ltrec.data.sources.imagefolder import ImageFolderSource

if TYPE_CHECKING:
    from pathlib import Path


def test_labels_are_torchvisions(tmp_path: Path) -> None:
    for path in ("10/a.jpg", "2/b.jpg", "Zebra/x.jpg", "ant/x.jpg"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    found = ImageFolderSource(kind="imagefolder", root=str(tmp_path)).scan()
    assert list(found.classes) == ImageFolder(str(tmp_path)).classes == ["10", "2", "Zebra", "ant"]
    assert found.splits["train"].paths == ("10/a.jpg", "2/b.jpg", "Zebra/x.jpg", "ant/x.jpg")
    assert found.splits["train"].labels.tolist() == [0, 1, 2, 3]
