"""What tests ask of the text of a page."""

from __future__ import annotations

import re

_OWN = re.compile(r'<script defer src="(?:\.\./)*(?:js|lib)/[\w.]+"></script>')


def without_own_scripts(text: str) -> str:
    """A page without the report's own scripts, which are files beside it: what is left must hold none."""
    return _OWN.sub("", text)
