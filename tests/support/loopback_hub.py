"""A hub of Hugging Face's kind on the loopback: what is downloaded, asked and committed, and the faults of a test."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Serves `repositories`, {name: {path: content}}: `.safetensors` under their sha256, other files under git's hash.

    Attributes:
        fault: `401`, `404`, `half` or `hash`, for downloads; empty for none.
        asked: (method, path) of every request.
        commit: The only commit's name; changed by every commit.
    """

    def __init__(self):
        self.repositories, self.fault, self.asked, self.commit = {}, "", [], "c" * 40
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.resolve(self, with_body=False)

            def do_GET(self):
                hub.resolve(self, with_body=True)

            def do_POST(self):
                hub.post(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def known(self, content, headers):
        return {"Content-Length": str(len(content)), "X-Repo-Commit": self.commit, **(headers or {})}

    def answer(self, request, status, content=b"", headers=None):
        request.send_response(status)
        for name, value in self.known(content, headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def resolve(self, request, with_body):
        path = unquote(request.path.partition("?")[0])
        self.asked.append((request.command, path))
        repository, found, rest = path.strip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if self.fault == "401":
            return self.answer(request, 401, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if not found or repository not in self.repositories or self.fault == "404":
            return self.answer(request, 404, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "none"})
        content = self.repositories[repository].get(name)
        if content is None:
            return self.answer(request, 404, headers={"X-Error-Code": "EntryNotFound", "X-Error-Message": "none"})
        large = name.endswith(".safetensors")
        etag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
        headers = {"ETag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        if large:
            headers["X-Linked-Etag"] = f'"{etag}"'
        if self.fault == "hash":
            content = content[:-1] + bytes([content[-1] ^ 1])
        request.send_response(200)
        for key, value in {"Content-Length": str(len(content)), "X-Repo-Commit": self.commit, **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if with_body and self.fault == "half":
            request.wfile.write(content[: len(content) // 2])
            request.close_connection = True
        elif with_body:
            request.wfile.write(content)
        return None

    def post(self, request, body):
        path = unquote(request.path.partition("?")[0])
        self.asked.append(("POST", path))
        if self.fault == "401":
            return self.answer(request, 401, b"{}")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(name, {})
            return self.answer(request, 200, json.dumps({"url": f"{self.url}/{name}", "name": name}).encode())
        _, _, rest = path.partition("/api/models/")
        owner, name, action = rest.split("/")[:3]
        files = self.repositories[f"{owner}/{name}"]
        if action == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(request, 200, json.dumps({"files": modes}).encode())
        if action == "paths-info":
            from urllib.parse import parse_qs

            wanted = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            there = [
                {"type": "file", "path": p, "size": len(files[p]), "oid": git_hash(files[p])}
                for p in wanted
                if p in files
            ]
            return self.answer(request, 200, json.dumps(there).encode())
        assert action == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.commit = hashlib.sha1(body).hexdigest()
        done = {
            "success": True,
            "commitOid": self.commit,
            "commitUrl": f"{self.url}/{owner}/{name}/commit/{self.commit}",
        }
        return self.answer(request, 200, json.dumps(done).encode())
