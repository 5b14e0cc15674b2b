"""Which card this is, what else runs on it, and how much room it has. Only asked, never set."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass

from fa4_asv.base.core_locks import processor
from fa4_asv.base.errors import Fa4AsvError

_TIMEOUT = 20.0
_FIELDS = "index,name,uuid,memory.total,memory.used"
# A context of a process with torch, FA4's kernels and the timer's buffers, and what one turn or guard allocates at most, in
# MiB; measured on an H100: 970 each after the first round, up to 2,700 for the one whose turn it is.
CONTEXT_MIB, INPUTS_MIB, LOADING_MIB = 1000, 4096, 2700


@dataclass(frozen=True)
class Card:
    """A card as nvidia-smi names it, or the processor of a machine whose benchmarks run on it (`uuid` "cpu")."""

    index: int
    name: str
    uuid: str
    total_mib: int = 0
    used_mib: int = 0

    @property
    def digest(self) -> str:
        """Twelve digits that tell cards apart and say nothing of where they are."""
        return hashlib.sha256(f"fa4_asv card {self.uuid}".encode()).hexdigest()[:12]


def cpu_card() -> Card:
    """The processor in the place of a card: for CPU benchmarks and stand-ins."""
    return Card(0, processor(), "cpu")


def cards(program: str = "nvidia-smi") -> list[Card]:
    """The cards of this machine that CUDA_VISIBLE_DEVICES (unset: all) lets be seen, in its order.

    Raises Fa4AsvError where there is none, or nvidia-smi does not tell.
    """
    found_cards: list[Card] = []
    for line in _ask(program, f"--query-gpu={_FIELDS}"):
        fields = [field.strip() for field in line.split(",")]
        try:
            found_cards.append(Card(int(fields[0]), fields[1], fields[2], int(fields[3]), int(fields[4])))
        except (ValueError, IndexError):
            raise Fa4AsvError(f"nvidia-smi answered {line[:200]!r}, expected {_FIELDS}") from None
    if not found_cards:
        raise Fa4AsvError(
            "no card: nvidia-smi lists none; a sweep times kernels on a Hopper or Blackwell card"
        )
    return _visible(found_cards, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _visible(cards: list[Card], message: str | None) -> list[Card]:
    """Those that `message` name by index or by the beginning of their UUID."""
    if message is None:
        return cards
    chosen: list[Card] = []
    for word in message.replace(" ", "").split(","):
        match = [card for card in cards if word and (word == str(card.index) or card.uuid.startswith(word))]
        if not match:
            raise Fa4AsvError(f"CUDA_VISIBLE_DEVICES={message!r} names no card of this machine ({word!r})")
        chosen += match[:1]
    return chosen


def strangers(card: Card, program: str = "nvidia-smi") -> list[str]:
    """Processes that hold memory of the card, as "python3 (pid 42)"."""
    lines = _ask(program, "--query-compute-apps=gpu_uuid,pid,process_name")
    rows = [[field.strip() for field in line.split(",", 2)] for line in lines]
    return [f"{row[2][-80:]} (pid {row[1]})" for row in rows if len(row) == 3 and row[0] == card.uuid]


def refuse_busy(card: Card, program: str = "nvidia-smi") -> None:
    """Raises Fa4AsvError where another process is on the card: what it does would be in every figure."""
    if others := strangers(card, program):
        raise Fa4AsvError(
            f"{card.name} (card {card.index}) is used by {', '.join(others[:3])}; end it, or choose another card"
        )


def room(card: Card) -> int:
    """How many processes fit on a card at once, by their contexts; as many as are asked for on a processor."""
    if card.uuid == "cpu":
        return sys.maxsize
    return max(0, (card.total_mib - card.used_mib - INPUTS_MIB) // CONTEXT_MIB)


def refuse_full(card: Card, processes: int, advice: str = "name fewer releases, or one flavour") -> None:
    """Raises Fa4AsvError where the contexts of `processes` at once do not fit, with what to do."""
    needed = processes * CONTEXT_MIB + INPUTS_MIB
    free = card.total_mib - card.used_mib
    if needed > free:
        raise Fa4AsvError(
            f"{processes} processes need about {needed >> 10} GiB of {card.name}, which has {free >> 10} GiB free; "
            f"{advice}"
        )


def loaders(card: Card, processes: int) -> int:
    """How many of `processes` may have inputs on the card at once, all others being idle there; at least one."""
    if not card.total_mib:
        return processes
    return max(1, (card.total_mib - card.used_mib - processes * CONTEXT_MIB) // LOADING_MIB)


def _ask(program: str, query: str) -> list[str]:
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise Fa4AsvError(
            "no card: nvidia-smi is not installed; `fa4-asv doctor` says what this machine can do"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Fa4AsvError(f"no card: nvidia-smi does not answer ({error})") from None
    if done.returncode:
        message = " ".join((done.stdout + done.stderr).split())[:200]
        raise Fa4AsvError(f"no card: nvidia-smi says {message!r}")
    return [line for line in done.stdout.splitlines() if line.strip()]
