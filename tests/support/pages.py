"""What tests ask of the text of a page."""

from __future__ import annotations

import json
import re
from typing import Any

_OWN = re.compile(r'<script defer src="(?:\.\./)*(?:js|lib)/[\w.]+"></script>')


def without_own_scripts(text: str) -> str:
    """A page without the report's own scripts, which are files beside it: what is left must hold none."""
    return _OWN.sub("", text)


def data_of_script(text: str) -> tuple[str, Any]:
    """The name and the value of a script file of data: one call, one JSON value, nothing else."""
    match = re.fullmatch(r'fa4\.put\(("[^"]+"), (.*)\);\n', text, re.DOTALL)
    assert match, text[:100]
    return json.loads(match[1]), json.loads(match[2])
