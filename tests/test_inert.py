"""Words of other people and machines, as they are kept and shown."""

from __future__ import annotations

import pytest

from fa4_asv.base.escape import without_places


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "ImportError: no 'Arch' (/tmp/w/.asv/lib/python3.12/site-packages/cutlass/base_dsl/__init__.py)",
            "ImportError: no 'Arch' (cutlass/base_dsl/__init__.py)",
        ),
        ("FileNotFoundError: '/home/me/.cache/x-1/y.json'", "FileNotFoundError: 'y.json'"),
        ("error:/home/me/x.py, file:///home/me/x", "error:x.py, x"),
        ("/a/x.so:/home/me/y.so", "x.so:y.so"),
        ("not supported on SM100/SM110, bf16/fp16", "not supported on SM100/SM110, bf16/fp16"),
        ("see https://docs.example/a/b.html and a / b", "see https://docs.example/a/b.html and a / b"),
        ("flash_attn/cute/interface.py:12 and ../x/y", "flash_attn/cute/interface.py:12 and ../x/y"),
    ],
)
def test_no_folder_of_a_machine_is_kept(text, shown):
    assert without_places(text) == shown
