"""A day, a pyproject.toml and a lock of invented packages."""

from __future__ import annotations

from datetime import datetime, timezone

DAY = datetime(2026, 5, 1, tzinfo=timezone.utc)
PYPROJECT = '[project]\nname = "flash-attn-4"\nversion = "1"\ndependencies = ["nvidia-cutlass-dsl>=4.4"]\n'
LOCK = "# comment\nnvidia-cutlass-dsl==4.6.0.dev0\napache-tvm-ffi==0.1.13.post3\n"
