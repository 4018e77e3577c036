"""A Hugging Face hub of one process: the calls that create a repository and commit files to it."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_tokenOfTheTests"


@dataclass
class FakeHub:
    """`repositories`: private or not, by name. `files`: content by repository and path. `calls`: what was asked."""

    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(*hub.look(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.calls.append(f"{self.path} {self.headers.get('Authorization')}")
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.answer(401, {"error": "Invalid credentials"})
                else:
                    self.answer(*hub.change(self.path, body, self.headers["Host"]))

            def answer(self, status: int, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def look(self, path: str) -> tuple[int, Any]:
        name, _, tree = (
            path.removeprefix("/api/models/").partition("?")[0].removesuffix("/revision/main").partition("/tree/")
        )
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        if tree:
            files = self.files.get(name, {})
            return 200, [{"type": "file", "path": at, "size": len(files[at]), "oid": "0" * 40} for at in files]
        return 200, {"id": name, "private": self.repositories[name], "sha": "0" * 40, "siblings": [], "tags": []}

    def change(self, path: str, body: bytes, host: str) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories[name] = asked.get("private", asked.get("visibility") == "private")
            return 200, {"url": f"http://{host}/{name}"}
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            return 200, {
                "files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for file in asked]
            }
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.messages.append(line["value"]["summary"])
            elif line["key"] == "deletedFile":
                del self.files[name][line["value"]["path"]]
            else:
                content = base64.b64decode(line["value"]["content"])
                self.files.setdefault(name, {})[line["value"]["path"]] = content
        return 200, {"success": True, "commitUrl": f"http://{host}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}
