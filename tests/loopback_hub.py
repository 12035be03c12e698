"""A Hub on 127.0.0.1 for the tests: repositories, LFS, commits, branches and downloads, and faults on request.

It speaks what huggingface_hub 2.4 asks for (without xet: HF_HUB_DISABLE_XET=1), and keeps all that it was sent.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "other", "unknown"}
CUT, HOLD, LOST = "cut", "hold", "lost"
"""Faults: the connection is closed in the middle of the file; nothing is answered until `released` is set; what was
asked is done, and the connection closed instead of an answer."""


@dataclass
class Repo:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        names = json.dumps(
            [len(self.commits), {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}]
        )
        name = hashlib.sha1(names.encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".parquet", ".png"))


class LoopbackHub(ThreadingHTTPServer):
    """`tokens`: token → (user, role). `faults` are (method, part of the path, status, CUT, HOLD or LOST), each once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens = {"hf_writer": ("ada", "write"), "hf_reader": ("ada", "read"), "hf_other": ("bob", "write")}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[tuple[str, str, int | str]] = []
        self.received = b""
        self.asked: list[str] = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, home: object, token: str | None = "hf_writer") -> dict[str, str]:
        """What a process needs to take this for the Hub; its cache and login are in `home`."""
        settings = {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
        return settings | {"HF_TOKEN": token or "", "HF_HUB_DOWNLOAD_TIMEOUT": "60", "NO_PROXY": "127.0.0.1"}

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", private: bool = False) -> Repo:
        repo = self.repos[kind, name] = Repo(private)
        repo.commit("main", files)
        return repo

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, value: object = None, body: bytes | None = None, **headers: str) -> None:
        if self.lost:
            return self.cut()
        data = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what: str) -> None:
        self.reply(404, {"error": what}, X_Error_Code=what, X_Error_Message=what)

    def fault(self) -> int | str | None:
        for place, (method, part, outcome) in enumerate(self.server.faults):
            if method == self.command and part in self.path:
                del self.server.faults[place]
                return outcome
        return None

    def cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def handle_any(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        fault, size = self.fault(), int(self.headers.get("Content-Length") or 0)
        self.lost = fault == LOST
        if fault == CUT and self.command == "PUT":
            self.rfile.read(size // 2)
            return self.cut()
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length + 2)[:-2]
            self.rfile.readline()
        else:
            body = self.rfile.read(size)
        self.server.received += body
        if fault == HOLD:
            self.server.released.wait(300)
            return self.cut()
        if isinstance(fault, int):
            return self.reply(fault, {"error": "on request"})
        path = unquote(urlsplit(self.path).path)
        if self.command == "PUT" and path.startswith("/lfs/"):
            oid = path.removeprefix("/lfs/")
            if hashlib.sha256(body).hexdigest() != oid:
                return self.reply(400, {"error": "other bytes than were announced"})
            self.server.large[oid] = body
            return self.reply(200, {})
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user, self.role = self.server.tokens.get(given, (None, None))
        if given and self.user is None:
            return self.reply(401, {"error": "Invalid credentials in Authorization header"})
        for method, pattern, action in ROUTES:
            if method in (self.command, self.command.replace("HEAD", "GET")) and (match := re.fullmatch(pattern, path)):
                named = {key: text for key, text in match.groupdict().items() if text is not None}
                return action(self, body, fault, **named)
        self.reply(404, {"error": f"no such route: {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def repo(self, kind: str, name: str, write: bool = False) -> Repo | None:
        """The repository; without one or without the right, the reply is sent and null returned."""
        repo = self.server.repos.get((kind, name))
        own = self.user == name.split("/")[0]
        if repo is None or (repo.private and not own):
            if self.user is None:  # as the Hub answers strangers, so that they cannot tell what is there
                self.reply(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            else:
                self.missing("RepoNotFound")
        elif write and not (own and self.role == "write"):
            self.reply(403, {"error": "Forbidden"}, X_Error_Message="you have no right to write here")
        else:
            return repo
        return None

    def whoami(self, body: bytes, fault: object) -> None:
        if self.user is None:
            return self.reply(401, {"error": "Invalid username or password."})
        self.reply(200, {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": self.role}}})

    def create(self, body: bytes, fault: object) -> None:
        asked = json.loads(body)
        kind, name = asked.get("type") or "model", f"{asked['organization'] or self.user}/{asked['name']}"
        url = f"{self.server.address}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if any(there == name for _, there in self.server.repos):
            return self.reply(409, {"error": "You already created this repo", "url": url})
        if self.role != "write" or name.split("/")[0] != self.user:
            return self.reply(403, {"error": "Forbidden"}, X_Error_Message="no right to create there")
        self.server.add(name, {".gitattributes": b""}, kind, asked.get("visibility") == "private")
        self.reply(200, {"url": url, "name": name, "id": name})

    def validate(self, body: bytes, fault: object) -> None:
        """Some of what the Hub finds wrong in a card's metadata."""
        found = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        licences = found.get("license", [])
        errors = [
            f"license {one}" for one in ([licences] if isinstance(licences, str) else licences) if one not in LICENCES
        ]
        base = found.get("base_model", "gpt2")
        errors += [] if re.fullmatch(r"([\w.-]+/)?[\w.-]+", base) else [f"base_model {base}"]
        for model in found.get("model-index", []):
            for result in model["results"]:
                whole = {"type"} <= result["task"].keys() and {"type", "name"} <= result["dataset"].keys()
                whole = whole and all({"type", "value"} <= metric.keys() for metric in result["metrics"])
                errors += [] if whole and result["metrics"] else ["model-index"]
        self.reply(400 if errors else 200, {"errors": [{"message": error} for error in errors], "warnings": []})

    def preupload(self, body: bytes, fault: object, kind: str, name: str, revision: str) -> None:
        if (repo := self.repo(kind, name, write=True)) is None:
            return
        if (commit := repo.at(revision)) is None:
            return self.missing("RevisionNotFound")
        there = repo.commits[commit]
        files = []
        for file in json.loads(body)["files"]:
            path, data = file["path"], there.get(file["path"])
            oid = None if data is None else oid_of(path, data)
            mode = "lfs" if is_large(path) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply(200, {"files": files})

    def batch(self, body: bytes, fault: object, name: str, prefix: str | None = None) -> None:
        if self.repo("dataset" if prefix else "model", name, write=True) is None:
            return
        objects = []
        for entry in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.server.address}/lfs/{entry['oid']}"}}
            objects.append(entry | ({} if entry["oid"] in self.server.large else {"actions": upload}))
        self.reply(200, {"transfer": "basic", "objects": objects})

    def commit(self, body: bytes, fault: object, kind: str, name: str, revision: str) -> None:
        if (repo := self.repo(kind, name, write=True)) is None:
            return
        if revision not in repo.branches:
            return self.missing("RevisionNotFound")
        files = dict(repo.commits[repo.branches[revision]])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.server.received += files[value["path"]]
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(revision, files)
        self.reply(200, {"success": True, "commitUrl": f"{self.server.address}/{name}/commit/{oid}", "commitOid": oid})

    def branch(self, body: bytes, fault: object, kind: str, name: str, revision: str) -> None:
        if (repo := self.repo(kind, name, write=True)) is None:
            return
        if revision in repo.branches:
            return self.reply(409, {"error": "exists"})
        repo.branches[revision] = repo.branches["main"]
        self.reply(200, {})

    def info(self, body: bytes, fault: object, kind: str, name: str, revision: str = "main") -> None:
        if (repo := self.repo(kind, name)) is None:
            return
        if (commit := repo.at(revision)) is None:
            return self.missing("RevisionNotFound")
        siblings = []
        for path, data in repo.commits[commit].items():
            lfs = {"lfs": {"size": len(data), "sha256": oid_of(path, data), "pointerSize": 1}} if is_large(path) else {}
            siblings.append({"rfilename": path, "size": len(data), "blobId": "0", **lfs})
        card = repo.commits[commit].get("README.md", b"").decode().split("---\n")
        found = {"cardData": yaml.safe_load(card[1])} if len(card) > 2 else {}
        self.reply(200, {"id": name, "sha": commit, "private": repo.private, "siblings": siblings, **found})

    def tree(self, body: bytes, fault: object, kind: str, name: str, revision: str, place: str = "") -> None:
        if (repo := self.repo(kind, name)) is None:
            return
        if (commit := repo.at(revision)) is None:
            return self.missing("RevisionNotFound")
        found = {path: data for path, data in repo.commits[commit].items() if path.startswith(place)}
        if place and not found:
            return self.missing("EntryNotFound")
        entries = []
        for path, data in found.items():
            lfs = {"lfs": {"size": len(data), "oid": oid_of(path, data), "pointerSize": 1}} if is_large(path) else {}
            entries.append({"type": "file", "path": path, "size": len(data), "oid": oid_of(path, data), **lfs})
        self.reply(200, entries)

    def resolve(
        self, body: bytes, fault: object, name: str, revision: str, path: str, prefix: str | None = None
    ) -> None:
        if (repo := self.repo("dataset" if prefix else "model", name)) is None:
            return
        if (commit := repo.at(revision)) is None:
            return self.missing("RevisionNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if (data := repo.commits[commit].get(path)) is None:
            return self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", **headers)
        headers |= {"ETag": f'"{oid_of(path, data)}"', "X-Linked-Size": str(len(data))}
        status, start = 200, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if fault == CUT and self.command == "GET":
            self.send_response(status)
            for header, text in {**headers, "Content-Length": str(len(data) - start)}.items():
                self.send_header(header, text)
            self.end_headers()
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            return self.cut()
        self.reply(status, body=data[start:], **headers)


def oid_of(path: str, data: bytes) -> str:
    """As git-lfs or git name a file's content."""
    if is_large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
_FILES = r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", _REPO + r"/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", _FILES + r"\.git/info/lfs/objects/batch", Handler.batch),
    ("POST", _REPO + r"/commit/(?P<revision>.+)", Handler.commit),
    ("POST", _REPO + r"/branch/(?P<revision>.+)", Handler.branch),
    ("GET", _REPO + r"(?:/revision/(?P<revision>.+))?", Handler.info),
    ("GET", _REPO + r"/tree/(?P<revision>[^/]+)(?:/(?P<place>.+))?", Handler.tree),
    ("GET", _FILES + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
