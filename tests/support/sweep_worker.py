"""In place of the worker of a sweep: it speaks its lines and has a clock of its own; without torch it starts in 20 ms.

    python sweep_worker.py

Asks nothing but the environment: FA4_ASV_SWEEP_LOG is a file to which each question and each start is written before and after, by
the machine's one clock; FA4_ASV_SWEEP_TOLD a JSON object that maps "WHO CALL QUESTION" (each part may be "*") to what happens
then: `die`, `hang`, `fatal`, `noise`, `refuse`, `guard`, `nonsense`, `meet` (wait until another process is asked the same); other
words are an error's. With "once " before it only the first time, noted beside the log.
WHO is the last folder of PYTHONPATH's first entry, CALL its direction and shape, as "backward b1_s256_h2_d128_causal".
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

LOG = Path(os.environ["FA4_ASV_SWEEP_LOG"])
TOLD = json.loads(os.environ.get("FA4_ASV_SWEEP_TOLD", "{}"))
WHO = Path(os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]).name
# Real time that a question takes, so that overlaps of phases would show.
TOOK = float(os.environ.get("FA4_ASV_SWEEP_TOOK", "0"))
LUCK = random.Random(os.getpid())


def note(**entries: object) -> None:
    line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), "who": WHO, **entries}) + "\n"
    handle = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, line.encode())
    os.close(handle)


def told(call: str, what: str) -> str:
    """What happens at this question, "" for an answer."""
    for key, word in TOLD.items():
        who, *asked, question = key.split(" ")
        if who in (WHO, "*") and " ".join(asked) in (call, "*") and question in (what, "*"):
            mark = LOG.with_name(f"{LOG.name}-{key.replace(' ', '-').replace('*', 'any')}")
            if word.startswith("once "):
                if mark.exists():
                    continue
                mark.touch()
            return word.removeprefix("once ")
    return ""


def met(what: str) -> bool:
    """Whether another process was asked the same kind of question within 20 s."""
    for _ in range(2000):
        lines = [json.loads(line) for line in LOG.read_text().splitlines()]
        if any(line["what"] == what and line["pid"] != os.getpid() for line in lines):
            return True
        time.sleep(0.01)
    return False


def error(kind: str, message: str, **more: bool) -> dict:
    return {"error": {"kind": kind, "words": message, "refused": False, "guard": False, **more}}


def measured(job: dict) -> dict:
    samples = {}
    if job["what"] == "first":
        samples = {"first_seconds": [0.5], "peak_bytes": [1024]}
    if job["what"] == "turn":
        work = 0.002 if job["backward"] else 0.001
        noise = [LUCK.gauss(1, 0.003) for _ in range(3)]
        samples = {"seconds": [float(f"{work * each * (1 + job.get('added', 0)):.6g}") for each in noise]}
    control = float(f"{LUCK.gauss(1e-4, 1e-7):.6g}") if job["what"] == "turn" else None
    notes = {"sm clock": "1980 MHz"} if job["what"] == "turn" else {}
    if job["what"] == "kernels":
        samples = {"kernel main": [0.0015], "kernel pre": [0.0001]}
    return {"samples": samples, "control": control, "errors": {}, "words": notes}


def answer(job: dict, word: str) -> dict:
    if word == "hang":
        time.sleep(600)
    if word == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "fatal":
        return error("AcceleratorError", "CUDA error: an illegal memory access was encountered", fatal=True)
    if word == "refuse":
        return error("unsupported", "head_dim 256 is not to be had", refused=True)
    if word == "guard":
        return error("guard", "dq is 1.0 from the reference", guard=True)
    if word == "noise":
        return error("noise", "17 of 20 samples were rejected")
    if word == "meet":
        word = "" if met(job["what"]) else "nobody came"
    if word:
        return error("RuntimeError", word)
    if TOOK:
        time.sleep(TOOK)
    return measured(job)


def main() -> None:
    note(what="ready")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        call = f"{'backward' if job.get('backward') else 'forward'} {job.get('shape', '-')}"
        if job.get("backend", "fa4") != "fa4":
            call += f" {job['backend']}"
        note(what=job["what"], call=call, begun=True)
        word = told(call, job["what"])
        reply = "no JSON" if word == "nonsense" else json.dumps(answer(job, word))
        note(what=job["what"], call=call, begun=False)
        print(reply, flush=True)


if __name__ == "__main__":
    main()
