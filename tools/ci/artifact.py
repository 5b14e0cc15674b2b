"""An artifact of a workflow run, read as data: nothing of it is unpacked to disk or executed.

The archive was made by a job that ran a pull request's code, so every byte of it is somebody else's.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from typing import Any

from tools.ci.steps import Refused, call

LARGEST = 64 * 2**20  # bytes of an archive; the whole record has 7 MB, unpacked

# What zipfile raises on an archive that is damaged, encrypted or packed in a way it does not know.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
)


def api(*arguments: str, body: bytes | None = None) -> bytes:
    """GitHub's answer through its own command line, which knows token, server and retries. Raises Refused."""
    done = call(["gh", "api", *arguments], input=body)
    if done.returncode != 0:
        raise Refused(f"GitHub refused `gh api {arguments[0]}` (exit code {done.returncode})")
    return bytes(done.stdout)


def answer(*arguments: str, body: bytes | None = None) -> Any:
    """The same, as JSON."""
    try:
        return json.loads(api(*arguments, body=body))
    except ValueError:
        raise Refused(f"GitHub's answer to `gh api {arguments[0]}` is not JSON") from None


def fetch(repository: str, run: str, name: str, largest: int = LARGEST) -> zipfile.ZipFile | None:
    """The artifact `name` of a run, None where it left none. Raises Refused where it is none to read."""
    listed = answer(f"repos/{repository}/actions/runs/{run}/artifacts?name={name}&per_page=100")
    live = [each for each in listed["artifacts"] if each["name"] == name and not each["expired"]]
    if not live:
        return None
    newest = max(live, key=lambda each: int(each["id"]))
    if int(newest["size_in_bytes"]) > largest:
        raise Refused(f"the artifact {name} has more than {largest} bytes")
    data = api(f"repos/{repository}/actions/artifacts/{int(newest['id'])}/zip")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        raise Refused(f"the artifact {name} is not a zip archive") from None


def member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """One file of the archive by its exact name, at most `largest` bytes. Raises Refused.

    The size an archive states is its maker's word: what is read is bounded, too.
    """
    try:
        with archive.open(name) as stream:
            data = stream.read(largest + 1)
    except KeyError:
        raise Refused(f"the artifact holds no {name}") from None
    except _UNREADABLE as error:
        raise Refused(f"{name} in the artifact cannot be read ({type(error).__name__})") from None
    if len(data) > largest:
        raise Refused(f"{name} in the artifact has more than {largest} bytes")
    return data
