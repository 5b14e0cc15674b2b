"""Other people's words (commit subjects, branch names, what FA4 raised), made harmless for where they are shown."""

from __future__ import annotations

import html
import re

# What steers a terminal, a browser or a reader's eye: control and format characters (bidirectional ones among them),
# line and paragraph separators, surrogates, private ones. Tabs and line ends are left to `one_line`.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufeff\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)


def visible(text: str) -> str:
    """Text in which what is not seen is shown as an escape, as Python writes it: "\\x1b", "\\u202e", "\\ud800"."""
    return text if text.isprintable() else _UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def one_line(text: str, most: int = 300) -> str:
    """A line that steers no terminal: blanks and line ends become one space, what is not seen an escape."""
    line = visible(" ".join(_BLANKS.split(text)).strip())
    return line if len(line) <= most else line[: most - 1] + "…"


_BLANKS = re.compile("[ \t\r\n\v\f\xa0]+")


def steers_pages(text: str) -> bool:
    """Whether it holds what HTML reads as markup, or a character that is not shown: no name of ours needs one.

    asv puts names of machines, parameters and units into its pages as they are.
    """
    return not text.isprintable() or any(sign in text for sign in '<>&"')


def holds_tags(text: str) -> bool:
    """Whether a text of several lines, such as a program, holds what HTML reads as a tag, or a character that is not
    shown. "a < b" and "->" are none."""
    return visible(text) != text or re.search("<[A-Za-z/!?]", text) is not None


_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\[\d+(?:;\d+)*m")
_PLACE = re.compile(r"(?<![\w/.])(?<!:/)/(?:[\w.+@-]+/)+")  # no address: "://" stands before none


def without_colours(text: str) -> str:
    """What was said without the codes that steer a terminal, and those of colours that lost their escape character."""
    return _COLOURS.sub("", text)


def without_places(text: str) -> str:
    """Words without the folders of the machine that said them: of a package's file from the package on, else its name."""
    text = text.replace("file:///", "/")
    return _PLACE.sub("", re.sub(r"(?<![\w/.])/[^\s:]*?/site-packages/", "", text))


def plain(text: str, most: int = 10_000) -> str:
    """Markdown text that neither Markdown nor HTML reads as anything else."""
    line = html.escape(one_line(text, most), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", line)


def code(text: str, most: int = 300) -> str:
    """A Markdown code span, fit for a cell of a table: there a forge looks for no mention, link or issue.

    A bar ends a cell even inside code, and forges differ in how it is escaped: it becomes a look-alike.
    """
    line = one_line(text, most).replace("|", "\N{BOX DRAWINGS LIGHT VERTICAL}")
    if not line:
        return ""
    runs = {len(run) for run in re.findall(r"`+", line)}
    fence = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}"
