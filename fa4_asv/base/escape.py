"""Foreign text (commit subjects, branch names, what FA4 raised), made harmless for where they are shown."""

from __future__ import annotations

import html
import re

# Left as they are: `one_line` deals with them. All else that Python does not print steers a terminal, a browser or a
# reader's eye (control and format characters, line separators, surrogates), or nobody knows what it is (private, unassigned).
_LEFT = "\t\n\xa0"


def visible(text: str) -> str:
    """Text in which what is not seen is shown as an escape, as Python writes it: "\\x1b", "\\u202e", "\\ud800"."""
    rest = text
    for sign in _LEFT:
        rest = rest.replace(sign, "")
    if rest.isprintable():
        return text  # of whole pages, too, without a look at each character
    return "".join(sign if sign.isprintable() or sign in _LEFT else ascii(sign)[1:-1] for sign in text)


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
