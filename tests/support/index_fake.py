"""A package index on loopback that remembers what it was asked, and tiny wheels for it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(name: str, version: str, requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """File name and content of a wheel that holds nothing but its metadata."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(
            f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{stem}-py3-none-any.whl", packed.getvalue()


@dataclass
class FakeIndex:
    """Serves wheels, all uploaded in April 2026, until closed; `asked` are the paths of all requests."""

    wheels: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeIndex:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.address}/simple/"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, version: str, *requires: str) -> None:
        file, content = wheel(name, version, requires)
        self.wheels.setdefault(name, {})[file] = content

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        parts = handler.path.strip("/").split("/")
        if parts[0] == "simple" and parts[-1] in self.wheels:
            body, kind = json.dumps(self._page(parts[-1])).encode(), "application/vnd.pypi.simple.v1+json"
        else:
            files = {file: content for wheels in self.wheels.values() for file, content in wheels.items()}
            body, kind = files.get(parts[-1], b""), "application/octet-stream"
        handler.send_response(200 if body else 404)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def _page(self, name: str) -> dict[str, object]:
        files = [
            {
                "filename": file,
                "url": f"{self.address}/files/{file}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
                "upload-time": "2026-04-01T00:00:00Z",
            }
            for file, content in self.wheels[name].items()
        ]
        return {"meta": {"api-version": "1.1"}, "name": name, "files": files}
