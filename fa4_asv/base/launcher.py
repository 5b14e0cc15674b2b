"""Become another program, bounded: `python -I -S launcher.py PARENT BOUNDS COMMAND...`; without COMMAND only try the bounds.

Started by `base.isolation`, in the process that is to run the program. It imports nothing but the standard library, and
nothing of site-packages: code that a toolchain runs at the start of each interpreter must find the bounds in force.
PARENT is the process id of who started it: the program is killed when that ends. BOUNDS is JSON: "data" and "file" are
bytes (0: no limit), "network" says whether it keeps the network, "group" whether its process group ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def end_with(parent: int) -> None:
    """Be killed when the process `parent` ends, which started this one; at once where it has ended already."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_group_with_us() -> None:
    """Leave a process behind that kills the process group of this one, its leader, when this one ends for any reason.

    A worker that is killed takes nothing along by itself; where whoever started it was killed, too, nobody else would.
    """
    leader = os.getpid()
    if os.getpgrp() != leader:
        return
    try:
        handle = os.pidfd_open(leader)
    except OSError:  # Linux before 5.3, or not allowed
        return
    if child := os.fork():
        os.waitpid(child, 0)
        os.close(handle)
        return
    os.setsid()
    if not os.fork():
        os.chdir("/")
        for number in (0, 1, 2):  # pipes: whoever reads them waits for their end
            os.close(number)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll()
        try:
            os.killpg(leader, signal.SIGKILL)
        except OSError:
            pass
    os._exit(0)


def limit(kind: int, most: int) -> None:
    """Lower a limit to `most`; one that is lower already stays."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def leave_network(libc: ctypes.CDLL) -> None:
    """Enter a network without interfaces, in a user namespace of its own with the same user. Raises OSError.

    Other processes of the user are then out of reach, too: their memory and their environment cannot be read.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_USER | _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def main() -> None:
    end_with(int(sys.argv[1]))
    bounds, command = json.loads(sys.argv[2]), sys.argv[3:]
    limit(resource.RLIMIT_CORE, 0)
    for kind, name in ((resource.RLIMIT_DATA, "data"), (resource.RLIMIT_FSIZE, "file")):
        if bounds[name]:
            limit(kind, bounds[name])
    if not bounds["network"]:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            leave_network(libc)
        except OSError as error:
            sys.exit(f"user namespaces: {error.strerror}")
        libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if command:
        if bounds["group"]:
            end_group_with_us()
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
