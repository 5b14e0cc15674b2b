"""The driver's loop: orders out, answers in, bounded retries elsewhere; it knows no engine and no record."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fa4_asv.backfill.cluster.order import Answer
from fa4_asv.backfill.cluster.pool import News, Pool
from fa4_asv.backfill.tasks import Task, TaskOutcome
from fa4_asv.base.errors import Fa4AsvError

# Orders that wait in the engine beyond those that run: an autoscaler sees them, a node that joins finds them.
AHEAD = 64
# A node bounds its tasks itself; this is for one that cannot even do that.
GRACE = 300.0
POLL = 5.0
TELL_AFTER = 30.0
# Tasks that failed on a node with none between that did not: it takes no more of them, whatever the reason.
STRIKES = 3

Say = Callable[[str], None]


@dataclass
class _Item:
    """A task on its way. `nodes` are those where it failed, `started` is when it began where it is now."""

    task: Task
    failures: int = 0
    nodes: set[str] = field(default_factory=set)
    avoid: frozenset[str] = frozenset()
    node: str = ""
    started: float | None = None


class Drive:
    """One backfill over a pool.

    `order` makes what is sent for a task, `keep` verifies what came back and moves it into the record;
    either raises Fa4AsvError. A task that fails is tried `retries` times more, elsewhere where there is an
    elsewhere. A node whose own fault it was gets no more tasks, and the task's tries are not counted.
    """

    def __init__(
        self,
        pool: Pool,
        order: Callable[[Task], bytes],
        keep: Callable[[Task, Answer], list[Path]],
        retries: int,
        timeout: float,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._order, self._keep = pool, order, keep
        self._retries, self._timeout, self._say, self._clock = retries, timeout, say, clock
        self._tickets = itertools.count(1)
        self._queue: deque[_Item] = deque()
        self._out: dict[int, _Item] = {}
        self._banned: dict[str, str] = {}
        self._strikes: dict[str, int] = {}
        self._quiet_since, self._told = clock(), False

    def run(self, tasks: Sequence[Task]) -> Iterator[TaskOutcome]:
        """Each task as it ends. However the caller stops, nothing is left running."""
        self._queue.extend(_Item(task) for task in tasks)
        try:
            while self._queue or self._out:
                yield from self._submit()
                if not self._out:
                    continue
                for news in self._pool.wait(POLL):
                    yield from self._hear(news)
                yield from self._late()
                yield from self._stranded()
        finally:
            self._pool.close()

    def _submit(self) -> Iterator[TaskOutcome]:
        most = self._pool.slots() + AHEAD
        while self._queue and len(self._out) < most:
            item = self._queue.popleft()
            try:
                order = self._order(item.task)
            except Fa4AsvError as error:
                yield TaskOutcome(item.task, why=f"{item.task.label}: {error}")
                continue
            item.avoid = self._avoid(item)
            item.node, item.started = "", None
            ticket = next(self._tickets)
            self._out[ticket] = item
            self._pool.submit(ticket, order, item.avoid)

    def _avoid(self, item: _Item) -> frozenset[str]:
        """Banned nodes, and those where the task failed, as long as there is another."""
        banned = frozenset(self._banned)
        wanted = banned | item.nodes
        return wanted if set(self._pool.nodes()) - wanted else banned

    def _hear(self, news: News) -> Iterator[TaskOutcome]:
        item = self._out.get(news.ticket)
        if item is None:
            return  # of an order that was given up
        if news.kind == "started":
            item.node, item.started = news.node, self._clock()
            return
        del self._out[news.ticket]
        item.node = news.node or item.node
        if news.kind == "lost":
            yield from self._failed(item, news.why)
            return
        try:
            answer = Answer.load(news.body)
            if answer.fault == "node":
                self._ban(item.node, answer.why)
                self._queue.appendleft(item)
                return
            moved = self._keep(item.task, answer)
        except Fa4AsvError as error:
            yield from self._failed(item, str(error))
            return
        self._strikes.pop(item.node, None)
        yield TaskOutcome(item.task, moved, host=answer.host)

    def _failed(self, item: _Item, why: str) -> Iterator[TaskOutcome]:
        item.failures += 1
        item.nodes.add(item.node)
        message = f"{item.task.label}: {why}" + (f" (on {self._host(item.node)})" if item.node else "")
        self._say(f"attempt {item.failures} of {self._retries + 1}: {message}")
        self._strikes[item.node] = self._strikes.get(item.node, 0) + 1
        if (
            item.node
            and self._strikes[item.node] >= STRIKES
            and set(self._pool.nodes()) - {item.node, *self._banned}
        ):
            self._ban(item.node, f"{STRIKES} tasks in a row failed there, the last with: {why}")
        if item.failures > self._retries:
            yield TaskOutcome(item.task, why=message)
        else:
            self._queue.appendleft(item)

    def _ban(self, node: str, why: str) -> None:
        if node not in self._banned:
            self._say(f"{self._host(node)} gets no more tasks: {why}")
            self._banned[node] = why
            self._ask_anew(lambda item: node not in item.avoid)

    def _ask_anew(self, which: Callable[[_Item], bool]) -> None:
        """Take back the orders that no node has begun, to be submitted again by what is known now."""
        for ticket, item in reversed(list(self._out.items())):
            if item.started is None and which(item):
                self._pool.cancel(ticket)
                del self._out[ticket]
                self._queue.appendleft(item)

    def _host(self, node: str) -> str:
        host = self._pool.nodes().get(node, "a node that is gone")
        return f"{host} ({node[:8]})" if node else host

    def _late(self) -> Iterator[TaskOutcome]:
        """Give up orders whose node has not even ended them itself."""
        bound = self._timeout + GRACE
        for ticket, item in list(self._out.items()):
            if item.started is not None and self._clock() - item.started > bound:
                self._pool.cancel(ticket)
                del self._out[ticket]
                yield from self._failed(item, f"no answer within {bound:.0f} s; given up")

    def _stranded(self) -> Iterator[TaskOutcome]:
        """Orders that no node may take: asked anew of the others, or, where all are unfit, given up."""
        if any(item.started is not None for item in self._out.values()):
            self._quiet_since, self._told = self._clock(), False
            return
        nodes = self._pool.nodes()
        fit = set(nodes) - set(self._banned)
        if nodes and not fit:
            why = "; ".join(f"{self._host(node)}: {self._banned[node]}" for node in nodes)
            for ticket in list(self._out):
                self._pool.cancel(ticket)
            left = [*self._out.values(), *self._queue]
            self._out.clear()
            self._queue.clear()
            for item in left:
                yield TaskOutcome(item.task, why=f"{item.task.label}: no node is left that can do it: {why}")
            return
        self._ask_anew(lambda item: bool(fit) and not fit - item.avoid)
        if not self._told and self._clock() - self._quiet_since > TELL_AFTER:
            self._told = True
            known = ", ".join(sorted(nodes.values())) or "none"
            self._say(f"waiting for a node with {self._pool.demand()}; alive and large enough: {known}")
