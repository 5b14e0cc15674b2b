"""The driver's loop over a pool that is played: who does what after each thing that goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4_asv.backfill.cluster.drive import GRACE, Drive
from fa4_asv.backfill.cluster.order import Answer
from fa4_asv.backfill.cluster.pool import News
from fa4_asv.backfill.tasks import Task
from fa4_asv.base.errors import Fa4AsvError
from tests.support.played_pool import PlayedPool

GOOD = Answer(host="h", results=b"record")
FULL = Answer(fault="node", why="full disk: 3 MiB free in /scratch, a task needs 2048")
BAD = Answer(fault="task", why="asv recorded nothing (exit code 1)")
TIMEOUT = 100.0


def tasks(*names: str) -> list[Task]:
    return [Task(f"{name}{'0' * 39}", name, "cu13", ("codegen",)) for name in names]


def driven(pool, *names, retries=1, order=lambda task: task.name.encode()):
    """(ended, kept, said) of a whole drive."""
    recorded, messages = [], []

    def keep(task, answer):
        if answer.fault:
            raise Fa4AsvError(answer.why)
        recorded.append(task.name)
        return [Path(task.name)]

    drive = Drive(pool, order, keep, retries, TIMEOUT, messages.append, clock=lambda: pool.now)
    return list(drive.run(tasks(*names))), recorded, messages


def test_every_task_is_kept_once_and_nothing_is_left_open():
    pool = PlayedPool(lambda *_: GOOD, "a", "b")
    ended, recorded, messages = driven(pool, "x", "y", "z")
    assert [(each.task.name, each.why, each.host) for each in ended] == [(n, "", "h") for n in "xyz"]
    assert recorded == ["x", "y", "z"]
    assert {node for _, node in pool.seen} == {"a", "b"}
    assert messages == [] and pool.closed


@pytest.mark.parametrize(
    "played", ["the worker was lost (it died)", BAD, b"{]", b'{"fault": "odd"}', b'{"x": 1}']
)
def test_what_fails_is_tried_again_on_another_node(played):
    first = []
    pool = PlayedPool(lambda task, node: GOOD if first else first.append(node) or played, "a", "b")
    ended, recorded, messages = driven(pool, "x")
    assert recorded == ["x"] and not ended[0].why
    (first_node, second_node) = (node for _, node in pool.seen)
    assert first_node != second_node
    assert (
        len(messages) == 1
        and messages[0].startswith("attempt 1 of 2: x cu13: ")
        and f"host-{first_node}" in messages[0]
    )


def test_retries_are_bounded_and_the_others_go_on():
    pool = PlayedPool(lambda task, node: BAD if task == "x" else GOOD, "a", "b")
    ended, recorded, messages = driven(pool, "x", "y", retries=2)
    assert recorded == ["y"]
    assert [each.why for each in ended if each.why] == [messages[-1].removeprefix("attempt 3 of 3: ")]
    assert len([task for task, _ in pool.seen if task == "x"]) == 3


def test_a_single_node_is_tried_again_itself():
    pool = PlayedPool(lambda task, node: GOOD if len(pool.seen) > 1 else "it died", "a")
    assert driven(pool, "x")[1] == ["x"]


def test_a_full_disk_costs_the_node_and_no_task_a_try():
    pool = PlayedPool(lambda task, node: FULL if node == "a" else GOOD, "a", "b")
    ended, recorded, messages = driven(pool, "u", "v", "x", "y", retries=0)
    assert sorted(recorded) == ["u", "v", "x", "y"] and not any(each.why for each in ended)
    assert messages == [f"host-a (a) gets no more tasks: {FULL.why}"]


def test_where_no_node_is_fit_each_task_ends_with_the_reason():
    pool = PlayedPool(lambda *_: FULL, "a", "b")
    ended, recorded, messages = driven(pool, "x", "y", "z")
    assert recorded == [] and len(messages) == 2
    for each in ended:
        assert each.why.startswith(
            f"{each.task.label}: no node is left that can do it: host-a (a): full disk: 3 MiB"
        )
    assert len(ended) == 3 and pool.closed


def test_a_node_on_which_everything_fails_is_left_alone():
    """It would otherwise take every task of the queue, being always free."""
    pool = PlayedPool(lambda task, node: BAD if node == "a" else GOOD, "a", "b", "c")
    ended, recorded, messages = driven(pool, *"klmnopqrstuvwxyz")
    assert sorted(recorded) == list("klmnopqrstuvwxyz")
    assert [node for _, node in pool.seen].count("a") == 3
    assert (
        "host-a (a) gets no more tasks: 3 tasks in a row failed there, the last with: asv recorded"
        in messages[-1]
    )


def test_a_node_that_answers_nothing_is_given_up():
    pool = PlayedPool(lambda task, node: None if len(pool.seen) == 1 else GOOD, "a", "b")
    ended, recorded, messages = driven(pool, "x", "y")
    assert sorted(recorded) == ["x", "y"] and pool.cancelled == [1]
    assert f"x cu13: no answer within {TIMEOUT + GRACE:.0f} s; given up" in messages[0]


def test_an_answer_to_an_order_that_was_given_up_is_no_news():
    played = iter([None])
    pool = PlayedPool(lambda *_: next(played, GOOD), "a", "b")
    wait, late = pool.wait, News(1, "answer", "a", GOOD.dump())
    pool.wait = lambda seconds: ([late] if pool.cancelled else []) + wait(seconds)
    ended, recorded, _ = driven(pool, "x")
    assert recorded == ["x"] and len(ended) == 1


def test_a_node_that_joins_late_is_waited_for_and_told_of_once():
    pool = PlayedPool(lambda *_: GOOD)
    pool.on_idle = lambda: pool.names.append("late") if pool.now > 300 and not pool.names else None
    ended, recorded, messages = driven(pool, "x", "y")
    assert recorded == ["x", "y"]
    assert messages == ["waiting for a node with 1 core(s); alive and large enough: none"]


def test_an_order_that_avoids_the_only_node_left_is_asked_of_it():
    """It failed on one node, was to run on the other, and that one goes away."""
    pool = PlayedPool(lambda *_: GOOD if len(pool.seen) > 1 else "it died", "a", "b")
    submit = pool.submit

    def lose_the_other(ticket, order, avoid):
        submit(ticket, order, avoid)
        if ticket == 2:
            pool.names = list(avoid)

    pool.submit = lose_the_other
    assert driven(pool, "x")[1] == ["x"]
    assert pool.cancelled == [2]


def test_a_task_without_an_order_ends_at_once():
    def order(task):
        if task.name == "x":
            raise Fa4AsvError("no toolchain for x")
        return task.name.encode()

    pool = PlayedPool(lambda *_: GOOD, "a")
    ended, recorded, _ = driven(pool, "x", "y", order=order)
    assert [each.why for each in ended] == ["x cu13: no toolchain for x", ""]
    assert recorded == ["y"]


def test_an_interrupt_ends_what_runs_and_keeps_what_ended():
    def play(task, node):
        if task == "y":
            raise KeyboardInterrupt
        return GOOD

    pool = PlayedPool(play, "a")
    recorded: list[str] = []
    drive = Drive(
        pool,
        lambda task: task.name.encode(),
        lambda task, _: recorded.append(task.name) or [],
        1,
        TIMEOUT,
        print,
    )
    with pytest.raises(KeyboardInterrupt):
        list(drive.run(tasks("x", "y", "z")))
    assert recorded == ["x"] and pool.closed


def test_orders_ahead_are_bounded():
    pool = PlayedPool(lambda *_: GOOD, "a")
    most = []
    submit = pool.submit
    pool.submit = lambda *arguments: (submit(*arguments), most.append(len(pool.waiting)))
    assert len(driven(pool, *(f"t{number}" for number in range(300)))[1]) == 300
    assert max(most) == 65
