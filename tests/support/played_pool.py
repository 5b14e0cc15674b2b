"""Nodes of a cluster, played in this process."""

from __future__ import annotations

from collections import deque

from fa4_asv.backfill.cluster.pool import News


class PlayedPool:
    """Nodes that take turns; `play(task, node)` is what an order comes to: an Answer, words (lost), or None (hangs)."""

    def __init__(self, play, *nodes: str) -> None:
        self.play, self.names, self.turn = play, list(nodes), 0
        self.waiting: deque[tuple[int, str, frozenset[str]]] = deque()
        self.seen: list[tuple[str, str]] = []
        self.cancelled: list[int] = []
        self.now, self.closed = 0.0, False
        self.on_idle = lambda: None

    def submit(self, ticket, order, avoid):
        self.waiting.append((ticket, order.decode(), avoid))

    def wait(self, seconds):
        for _ in range(len(self.waiting)):
            ticket, task, avoid = self.waiting.popleft()
            able = [name for name in self.names if name not in avoid]
            if not able:
                self.waiting.append((ticket, task, avoid))
                continue
            self.turn += 1
            node = able[self.turn % len(able)]
            self.seen.append((task, node))
            return [News(ticket, "started", node), *self.outcome(ticket, node, self.play(task, node))]
        self.now += seconds
        self.on_idle()
        return []

    def outcome(self, ticket, node, played):
        if played is None:
            return []
        if isinstance(played, str):
            return [News(ticket, "lost", node, why=played)]
        return [News(ticket, "answer", node, played if isinstance(played, bytes) else played.dump())]

    def cancel(self, ticket):
        self.cancelled.append(ticket)
        self.waiting = deque(entry for entry in self.waiting if entry[0] != ticket)

    def nodes(self):
        return {name: f"host-{name}" for name in self.names}

    def slots(self):
        return len(self.names)

    def demand(self):
        return "1 core(s)"

    def close(self):
        self.closed = True
