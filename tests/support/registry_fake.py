"""A registry on loopback: the simple JSON API over tiny sdists, with the faults that real ones have."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PYPROJECT = """[project]
name = "flash-attn-4"
dynamic = ["version"]
dependencies = ["nvidia-cutlass-dsl>=4.6.2"]
"""


def sdist(version: str, extra: dict[str, bytes] | None = None, mode: int = 0o644) -> bytes:
    """A flash-attn-4 sdist; `extra` maps full member names to content."""
    top = f"flash_attn_4-{version}"
    members = {
        f"{top}/pyproject.toml": PYPROJECT.encode(),
        f"{top}/PKG-INFO": f"Name: flash-attn-4\nVersion: {version}\n".encode(),
        f"{top}/interface.py": f"VERSION = {version!r}\n".encode(),
        f"{top}/flash_attn_4.egg-info/SOURCES.txt": b"left out\n",
        **(extra or {}),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@dataclass
class FakeRegistry:
    """Serves `files` (version -> sdist bytes) until closed; faults are set by attribute."""

    files: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    yanked: dict[str, str] = field(default_factory=dict)
    without_upload_times: bool = False
    corrupt: set[str] = field(default_factory=set)
    malformed: bool = False
    downloads: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeRegistry:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The poll is how long shutdown waits; its default is half a second a test.
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, version: str, uploaded: str, content: bytes | None = None) -> None:
        self.files[version] = sdist(version) if content is None else content
        self.uploads[version] = uploaded

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/simple/flash-attn-4/":
            body = b"{]" if self.malformed else json.dumps(self.page()).encode()
            self.send(handler, 200, "application/vnd.pypi.simple.v1+json", body)
            return
        version = handler.path.removeprefix("/files/flash_attn_4-").removesuffix(".tar.gz")
        if version not in self.files:
            self.send(handler, 404, "text/plain", b"no such file")
            return
        self.downloads.append(version)
        body = self.files[version]
        self.send(
            handler,
            200,
            "application/octet-stream",
            body[:-5] + b"wrong" if version in self.corrupt else body,
        )

    def send(self, handler: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def page(self) -> dict[str, object]:
        files = []
        for version, content in self.files.items():
            name = f"flash_attn_4-{version}.tar.gz"
            entry: dict[str, object] = {
                "filename": name,
                "url": f"http://127.0.0.1:{self.server.server_port}/files/{name}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
                "size": len(content),
            }
            if not self.without_upload_times:
                entry["upload-time"] = self.uploads[version]
            if version in self.yanked:
                entry["yanked"] = self.yanked[version]
            files.append(entry)
        return {"meta": {"api-version": "1.1"}, "name": "flash-attn-4", "files": files}
