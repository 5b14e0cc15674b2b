"""What the system refuses, planted: root, who runs tests in containers, may do everything."""

from __future__ import annotations

from pathlib import Path

import pytest


def refuse_listing(patched: pytest.MonkeyPatch, name: str) -> None:
    """No folder of this name can be listed."""
    lists = Path.iterdir

    def refuses(folder: Path):
        if folder.name == name:
            raise PermissionError(13, "Permission denied")
        return lists(folder)

    patched.setattr(Path, "iterdir", refuses)
