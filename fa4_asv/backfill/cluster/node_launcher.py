"""In a worker of the cluster's engine: ask a process of our own, which ends itself when its asker is gone.

Standard library only, so that a node which lacks the suite can say so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = (sys.executable, "-m", "fa4_asv.backfill.cluster.node")


def ask(order: bytes, folder: str, command: tuple[str, ...] = COMMAND) -> bytes:
    """The answer of `fa4_asv.backfill.cluster.node` to an order, both one JSON value; `folder` holds the sources,
    "" means the current one.

    Its standard input stays open for as long as the answer is waited for: however this process ends, the
    other one notices, ends what it started and goes.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder or Path.cwd(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            where = folder or "the package of the sources"
            return _fault(f"cannot start in {where}: {error.strerror}; does every node see this folder?")
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(order + b"\n")
            process.stdin.flush()
            answer = process.stdout.read()
        except BrokenPipeError:
            answer = b""
        finally:
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass
            code = process.wait()
        if answer:
            return answer
        errors.seek(0)
        arguments = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return _fault(f"the process for the task ended with {code}: {arguments[0][:300]}")


def _fault(why: str) -> bytes:
    return json.dumps({"fault": "node", "why": why}).encode()
