"""A stand-in for the W&B server on this machine: it takes what the real client sends, and notes it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """``status``: what requests are answered with. ``refused``: ids of W&B runs that are refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.refused: set[str] = set()
        self.runs: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[str, set[str]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path.startswith("/up/"):
            self.uploads[path.removeprefix("/up/")] = body
        elif path.endswith("/file_stream"):
            sent = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.rows.setdefault(path.split("/")[-2], []).extend(map(json.loads, sent))
        elif path == "/graphql":
            asked = json.loads(body)
            return self._graphql(asked["query"], asked.get("variables") or {})
        return 200, {}

    def _graphql(self, query: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "upsertBucket" in query:
            if given["name"] in self.refused:
                return 403, {"errors": [{"message": "permission denied"}]}
            known = {key: value for key, value in given.items() if value is not None}
            self.runs.setdefault(given["name"], {}).update(known)
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "x", "name": given["name"], "displayName": given.get("displayName"), "project": project}
            return 200, {"data": {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}}
        if "createRunFiles" in query:
            self.files.setdefault(given["run"], set()).update(given["files"])
            files = [{"name": f, "uploadUrl": f"{self.address}/up/{given['run']}/{f}"} for f in given["files"]]
            return 200, {"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}}
        if "createArtifact(" in query:
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return 200, {"data": {"createArtifact": {"artifact": artifact}}}
        return 200, {"data": {}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _take(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = server.answer(self.path, body) if server.status == 200 else (server.status, {})
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = _take


@contextmanager
def wandb_server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
