"""The worker's answers on a simulated card whose context dies: what is this case's fault, and what ends the process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fa4_asv.measure.runtime import route_on_gpu, worker
from fa4_asv.measure.runtime.tolerances import GuardFailed

ILLEGAL = "CUDA error: an illegal memory access was encountered"
ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect."
MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB."


class Card:
    """`torch` as far as `answer` uses it; a kernel's error shows where somebody waits for it."""

    def __init__(self) -> None:
        self.dead, self.held, self.calls = "", False, 0
        self.cuda = SimpleNamespace(
            is_initialized=lambda: True,
            is_available=lambda: True,
            synchronize=self.wait,
            empty_cache=self.give_back,
        )

    def wait(self) -> None:
        if self.dead:
            raise RuntimeError(self.dead + ADVICE)

    def give_back(self) -> None:
        self.wait()
        self.held = False


@pytest.fixture
def ask(monkeypatch):
    """The answer to a case that does something on a card."""

    def run(card: Card, does: Any) -> dict[str, Any]:
        def case(torch: Any, *_: Any) -> Any:
            torch.calls += 1
            return does(torch) or worker.measured({"seconds": [1.0]})

        monkeypatch.setitem(worker.JOBS, "seconds", case)
        return worker.answer(card, {"what": "seconds", "device": "cuda"}, None, None)

    return run


def _raise(error: Exception) -> None:
    raise error


def _dies(card: Card, message: str = ILLEGAL) -> None:
    card.dead = message


def test_a_sound_case_on_a_sound_card(ask):
    assert ask(Card(), lambda card: None)["samples"] == {"seconds": [1.0]}


def test_an_error_that_nobody_waited_for_is_this_cases(ask):
    answer = ask(Card(), _dies)
    assert answer == worker.broken("RuntimeError", ILLEGAL, fatal=True)


def test_what_is_raised_behind_an_earlier_case_ends_the_process_too(ask):
    card = Card()
    card.dead = ILLEGAL
    assert worker.is_dead(ask(card, lambda card: card.wait()))


def test_a_guard_that_failed_on_a_dead_card_is_no_failed_guard(ask):
    def no_kernel(card: Card) -> None:
        _dies(card)
        raise GuardFailed("no kernel named *flash_attncute* ran, but none")

    assert ask(Card(), no_kernel) == worker.broken("RuntimeError", ILLEGAL, fatal=True)
    sound = ask(Card(), lambda card: _raise(GuardFailed("out is off by 1")))
    assert sound == worker.broken("guard", "out is off by 1", guard=True)


def test_a_dead_card_is_known_whatever_the_error_is_called(ask):
    def library(card: Card) -> None:
        _dies(card, "CUDA error: an error of another century")
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    assert worker.is_dead(ask(Card(), library))
    alive = ask(Card(), lambda card: _raise(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")))
    assert not worker.is_dead(alive)


def test_no_memory_is_tried_again_once_it_is_given_back(ask):
    card = Card()
    card.held = True
    answer = ask(card, lambda card: _raise(RuntimeError(MEMORY)) if card.held else None)
    assert answer["samples"] == {"seconds": [1.0]}
    assert card.calls == 2


def test_no_memory_that_stays_ends_the_process_after_two_tries(ask):
    card = Card()
    answer = ask(card, lambda card: _raise(RuntimeError(MEMORY)))
    assert answer == worker.broken("RuntimeError", MEMORY, fatal=True)
    assert card.calls == 2


def test_fa4s_refusal_stays_one(ask):
    answer = ask(Card(), lambda card: worker.refused("head_dim 17"))
    assert answer == worker.refused("head_dim 17")
    no_kernel = ask(Card(), lambda card: _raise(RuntimeError("No available kernel. Aborting execution.")))
    assert no_kernel["error"]["refused"]


def test_a_card_on_which_no_control_can_be_made_is_of_no_use(monkeypatch):
    monkeypatch.setattr(worker, "timer_of", lambda torch, device: _raise(RuntimeError(MEMORY)))
    answer = worker.answer_line(Card(), {"what": "seconds", "device": "cuda"}, {})
    assert answer == worker.broken("RuntimeError", MEMORY, fatal=True)


def test_without_a_card_a_case_is_refused_and_nothing_is_fatal():
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False, is_initialized=lambda: False))
    job = {"what": "seconds", "device": "cuda", "shape": "b1_s512_h16_d128_full", "backend": "fa4"}
    answer = worker.answer_line(torch, job, {})
    assert answer == worker.refused("needs a CUDA GPU, this machine has none that torch can use")


def test_the_routes_checks_end_where_the_card_does(monkeypatch):
    """Those behind the guilty one would all be counted as broken."""
    asked = []

    def check(name: str, message: str) -> Any:
        return lambda torch, dtype: asked.append(name) or _raise(RuntimeError(message))

    torch = SimpleNamespace(
        nn=SimpleNamespace(attention=SimpleNamespace(restore_flash_attention_impl=lambda: None))
    )
    checks = {"one": check("one", "no"), "two": check("two", ILLEGAL), "three": check("three", ILLEGAL)}
    monkeypatch.setattr(route_on_gpu, "CHECKS", checks)
    with pytest.raises(RuntimeError, match=f"^two: {ILLEGAL}"):
        route_on_gpu.run_checks(torch, "bf16")
    assert asked == ["one", "two"]
    monkeypatch.setattr(route_on_gpu, "CHECKS", {"one": checks["one"]})
    count, result = route_on_gpu.run_checks(torch, "bf16")
    assert (count, list(result)) == (1, ["one"])
