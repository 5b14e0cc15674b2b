"""A plot of predicted against measured changes as SVG, for docs/model.md: the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Protocol

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40  # margins in pixels
_SIDE = 360  # of the square that holds the dots
_LOW, _HIGH, _EVERY = -25, 10, 5  # percent
_COLOURS = {"forward": "#1f6feb", "backward": "#d4740b"}
_LEAST = 0.005  # smaller changes, of the clock and the model alike, would be one blot


class Dot(Protocol):
    """A step as tools/loop_model.py has it."""

    release: str
    call: tuple[str, str]
    clock: float
    model: float | None


def scatter(steps: Iterable[Dot]) -> str:
    """A dot per step on which the model speaks and that either calls a change of half a percent and more."""
    size = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}" font-family="sans-serif" font-size="11">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="#fff"/>',
        *_axes(),
        *_dots(steps),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _x(percent: float) -> float:
    return round(_LEFT + (percent - _LOW) / (_HIGH - _LOW) * _SIDE, 1)


def _y(percent: float) -> float:
    return round(_TOP + _SIDE - (percent - _LOW) / (_HIGH - _LOW) * _SIDE, 1)


def _axes() -> Iterator[str]:
    """A grid with numbers, the diagonal on which a prediction is right, and what the axes are."""
    for mark in range(_LOW, _HIGH + 1, _EVERY):
        colour = "#888" if mark == 0 else "#ddd"
        yield f'<path d="M{_x(mark)} {_y(_LOW)}V{_y(_HIGH)}M{_x(_LOW)} {_y(mark)}H{_x(_HIGH)}" stroke="{colour}"/>'
        yield f'<text x="{_x(mark)}" y="{_y(_LOW) + 14}" text-anchor="middle">{mark}</text>'
        yield f'<text x="{_x(_LOW) - 6}" y="{_y(mark) + 4}" text-anchor="end">{mark}</text>'
    yield f'<path d="M{_x(_LOW)} {_y(_LOW)}L{_x(_HIGH)} {_y(_HIGH)}" stroke="#888" stroke-dasharray="4 3"/>'
    middle = (_LOW + _HIGH) / 2
    yield f'<text x="{_x(middle)}" y="{_y(_LOW) + 32}" text-anchor="middle">measured change of time, %</text>'
    yield (
        f'<text transform="translate(14 {_y(middle)}) rotate(-90)" text-anchor="middle">predicted change, %</text>'
    )


def _dots(steps: Iterable[Dot]) -> Iterator[str]:
    for step in steps:
        if step.model is not None and max(abs(step.clock), abs(step.model)) >= _LEAST:
            direction = step.call[0].partition("-")[0]
            message = (
                f"{step.release}, {direction} {step.call[1]}: {step.clock:+.1%}, predicted {step.model:+.1%}"
            )
            place = f'cx="{_x(100 * step.clock)}" cy="{_y(100 * step.model)}"'
            yield (
                f'<circle {place} r="3.5" fill="{_COLOURS[direction]}" fill-opacity="0.7">'
                f"<title>{escape(message)}</title></circle>"
            )


def _legend() -> Iterator[str]:
    for at, (name, colour) in enumerate(_COLOURS.items()):
        y = _TOP + 16 + 16 * at
        yield f'<circle cx="{_LEFT + 14}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
        yield f'<text x="{_LEFT + 24}" y="{y}">{name}</text>'
