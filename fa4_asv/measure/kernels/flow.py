"""Dominators and natural loops of a control-flow graph, by the textbook; knows nothing of SASS.

A loop is natural where each edge back into it goes to one block, its header, through which all ways into it lead.
A graph with a circle that has two ways in (irreducible) has no answer here: NotUnderstood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Edges = Sequence[Sequence[int]]


class NotUnderstood(Exception):
    """Why the shape of this code gives no figures; the words stand in their place."""


@dataclass(frozen=True)
class Loop:
    """Blocks of a natural loop, those of its inner loops included."""

    header: int
    blocks: frozenset[int]


def order_of(after: Edges, roots: Sequence[int]) -> list[int]:
    """Blocks that can be reached from `roots`, each before what follows it unless an edge leads back."""
    seen: set[int] = set()
    left: list[int] = []
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(after[root]))]
        while stack:
            block, rest = stack[-1]
            following = next((number for number in rest if number not in seen), None)
            if following is None:
                left.append(stack.pop()[0])
            else:
                seen.add(following)
                stack.append((following, iter(after[following])))
    return left[::-1]


def dominators(after: Edges, roots: Sequence[int]) -> dict[int, frozenset[int]]:
    """Block -> the blocks on every way from a root to it, itself included; only of what can be reached."""
    order = order_of(after, roots)
    before = before_of(after, order)
    every = frozenset(order)
    values = {block: frozenset([block]) if block in roots else every for block in order}
    moved = True
    while moved:
        moved = False
        for block in order:
            if block in roots:
                continue
            ways = [values[number] for number in before[block]]
            now = frozenset.intersection(*ways) | {block}
            moved = moved or now != values[block]
            values[block] = now
    return values


def before_of(after: Edges, order: Sequence[int]) -> dict[int, list[int]]:
    """Block -> those that lead to it, among the blocks of `order`."""
    values: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for following in after[block]:
            values[following].append(block)
    return values


def natural_loops(after: Edges, roots: Sequence[int]) -> list[Loop]:
    """All loops, outer ones first; loops with one header are one. Raises NotUnderstood on an irreducible graph."""
    order = order_of(after, roots)
    above = dominators(after, roots)
    back = [(block, to) for block in order for to in after[block] if to in above[block]]
    _refuse_other_circles(after, order, set(back))
    before = before_of(after, order)
    bodies: dict[int, set[int]] = {}
    for tail, header in back:
        bodies.setdefault(header, {header}).update(_body(tail, header, before))
    loops = [Loop(header, frozenset(body)) for header, body in bodies.items()]
    return sorted(loops, key=lambda loop: (-len(loop.blocks), loop.header))


def _body(tail: int, header: int, before: dict[int, list[int]]) -> set[int]:
    """What can reach `tail` without passing `header`."""
    body, todo = {header}, [tail]
    while todo:
        block = todo.pop()
        if block not in body:
            body.add(block)
            todo += before[block]
    return body


def _refuse_other_circles(after: Edges, order: list[int], back: set[tuple[int, int]]) -> None:
    """Without the edges back to a header no circle may be left."""
    forward = [[to for to in following if (block, to) not in back] for block, following in enumerate(after)]
    left = dict.fromkeys(order, 0)
    for block in order:
        for to in forward[block]:
            left[to] += 1
    todo = [block for block in order if not left[block]]
    gone = 0
    while todo:
        gone += 1
        for to in forward[todo.pop()]:
            left[to] -= 1
            if not left[to]:
                todo.append(to)
    if gone < len(order):
        raise NotUnderstood("a circle with more than one way in (an irreducible graph)")
