"""Every kind of store, a real registry among them: pushed to, listed, pulled from, and what goes wrong with each."""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import silent
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.pull import fetch, look
from kanoclip.runtime.ops.fleet.push import push
from kanoclip.runtime.ops.fleet.reference import Reference, address_tag
from kanoclip.runtime.ops.fleet.stores.blobs import BrokenOffError
from kanoclip.runtime.ops.fleet.stores.store import open_store


def there_and_back(url, keys, new_bundle, folder, read_from=None):
    """Two bundles go in, under two tags; both come out, and files that are there are not sent twice."""
    first = push(new_bundle(0), open_store(url), "line3", keys.signing, silent)
    second = push(new_bundle(1), open_store(url), "line5", keys.signing, silent)
    assert first.sent > 0 and second.sent == 0
    source = read_from or url
    assert open_store(source).tags() == sorted(
        ["line3", "line5", address_tag(first.address), address_tag(second.address)]
    )
    for tag, number, address in (("line3", 0, first.address), ("line5", 1, second.address)):
        for reference in (Reference(source, tag), Reference(source, None, address)):
            offer = look(open_store(source), reference, keys.trusted)
            out = folder / f"{tag} {reference.tag}"
            fetch(offer, out, silent)
            assert offer.address == address and Bundle.open(out).manifest == new_bundle(number).manifest
    with pytest.raises(FleetError, match=r"has no line4: it has line3, line5$"):
        look(open_store(source), Reference(source, "line4"), keys.trusted)


def served(handler, context=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_memory_of_fsspec(keys, new_bundle, tmp_path):
    there_and_back("memory://fleet/bundles", keys, new_bundle, tmp_path)


def test_a_folder_and_the_same_behind_a_web_server(keys, new_bundle, tmp_path):
    server = served(functools.partial(Quiet, directory=str(tmp_path)))
    url = f"http://127.0.0.1:{server.server_port}/store"
    try:
        there_and_back(str(tmp_path / "store"), keys, new_bundle, tmp_path, read_from=url)
        with pytest.raises(FleetError, match="to pull from: push to its folder"):
            push(new_bundle(0), open_store(url), "line3", keys.signing, silent)
        with pytest.raises(FleetError, match=r"answers 404 when asked for index\.json"):
            open_store(url + "x").tags()
    finally:
        server.shutdown()
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(FleetError, match="does not answer"):
        open_store(f"http://127.0.0.1:{server.server_port}").tags() if server.socket.close() is None else None


def test_a_web_server_that_breaks_off_and_goes_on(store_folder, keys, tmp_path):
    """It closes in the middle of each file once, and knows ranges, as real ones do."""
    cut = set()

    class Breaking(Quiet):
        def do_GET(self):
            content = (store_folder / self.path.lstrip("/")).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            rest = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if "blobs" in self.path and self.path not in cut and len(rest) > 1000:
                cut.add(self.path)
                rest = rest[: len(rest) // 2]
                self.close_connection = True
            self.wfile.write(rest)

    server = served(Breaking)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for _ in range(5):  # what is small is not resumed: it is asked for anew
            try:
                offer = look(open_store(url), Reference(url, "line3"), keys.trusted)
                break
            except BrokenOffError as error:
                assert "broke off" in str(error)
        before = len(cut)
        fetch(offer, tmp_path / "out", silent)
        assert len(cut) > before and Bundle.open(tmp_path / "out")
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oci://host", "names no repository"),
        ("oci://host/Kanoclip", "in small letters"),
        ("oci://user:word@host/x", "credentials do not belong into a URL"),
        ("nosuch://x/y", "cannot be used: .*nosuch"),
        ("s3://bucket/x", "s3fs"),
    ],
)
def test_urls_that_will_not_do(url, said):
    if "s3" in url:
        try:
            import s3fs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("s3fs is installed")
    with pytest.raises(FleetError, match=said) as caught:
        open_store(url)
    assert "word" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(FleetError, match="no store of bundles, or nothing was pushed yet"):
        open_store(str(tmp_path)).tags()
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(FleetError, match="no JSON object"):
        open_store(str(tmp_path)).tags()


def test_images_of_others_in_the_same_layout_stay(tmp_path, keys, new_bundle):
    other = {"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": 3, "annotations": {"who": "else"}}
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [other]}))
    push(new_bundle(), open_store(str(tmp_path)), "line3", keys.signing, silent)
    push(new_bundle(), open_store(str(tmp_path)), "line3", keys.signing, silent)
    manifests = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert manifests[0] == other and len(manifests) == 3


# bcrypt, by libxcrypt: the password of the user "line" is "s3cret word".
HTPASSWD = "line:$2b$04$9SzwzuJ59SiCOccF9vu2rOqYVpi7jXx3Ze3inWaPiX.qobd/pC1XW\n"


class DockerRegistry:
    """Debian's docker-registry on a free port."""

    def __init__(self, program, folder, auth=""):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        folder.mkdir(exist_ok=True)
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '{self.host}'}}\n{auth}"
        )
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen([program, "serve", str(config)], stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def registry(tmp_path, program):
    made = []

    def start(auth=""):
        made.append(DockerRegistry(program("docker-registry"), tmp_path / f"registry{len(made)}", auth))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.programs("docker-registry")
def test_a_real_registry(registry, keys, new_bundle, tmp_path):
    server = registry()
    url = f"oci://{server.host}/plant/kanoclip"
    with pytest.raises(FleetError, match="answers 404"):
        open_store(url).tags()
    there_and_back(url, keys, new_bundle, tmp_path)
    # What oras needs to make the same files: a title for each layer.
    image = json.loads(open_store(url).image("line3"))
    assert {layer["annotations"]["org.opencontainers.image.title"] for layer in image["layers"]} == {
        "manifest.json",
        *new_bundle(0).manifest.files,
    }
    # Truncated where the registry keeps it: by its length the registry would tell, so it is cut behind its back.
    digest = new_bundle(0).manifest.files["model.onnx"].sha256
    blob = next(tmp_path.rglob(f"{digest}/data"))
    good = blob.read_bytes()
    for bad, said in ((good[:-10], "truncated|broke off"), (good[:-1] + b"!", "damaged or changed")):
        blob.write_bytes(bad)
        offer = look(open_store(url), Reference(url, "line3"), keys.trusted)
        with pytest.raises(FleetError, match=said):
            fetch(offer, tmp_path / "out", silent)
        assert not (tmp_path / "out").exists()
    server.close()
    with pytest.raises(FleetError, match="does not answer"):
        open_store(url).tags()


@pytest.mark.programs("docker-registry")
def test_a_registry_with_users(registry, keys, new_bundle, tmp_path, monkeypatch):
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    server = registry(f"auth: {{htpasswd: {{realm: plant, path: {tmp_path}/htpasswd}}}}\n")
    url = f"oci://{server.host}/kanoclip"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(FleetError, match="wants a user: set KANOCLIP_REGISTRY_USER"):
        open_store(url).tags()
    monkeypatch.setenv("KANOCLIP_REGISTRY_USER", "line")
    monkeypatch.setenv("KANOCLIP_REGISTRY_PASSWORD", "another word")
    with pytest.raises(FleetError, match=r"answers 401.*log in") as caught:
        push(new_bundle(), open_store(url), "line3", keys.signing, silent)
    assert "another word" not in str(caught.value)
    monkeypatch.setenv("KANOCLIP_REGISTRY_PASSWORD", "s3cret word")
    there_and_back(url, keys, new_bundle, tmp_path)
    # As docker login leaves it.
    monkeypatch.delenv("KANOCLIP_REGISTRY_USER")
    basic = base64.b64encode(b"line:s3cret word").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": basic}}}))
    assert "line3" in open_store(url).tags()


def token_server(key, log):
    """Gives tokens to the user line, for what is asked for, as a registry's own does."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    begin = datetime.now(timezone.utc) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )

    def part(value):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    class Tokens(BaseHTTPRequestHandler):
        def do_GET(self):
            query = parse_qs(urlsplit(self.path).query)
            log.append((query.get("scope"), self.headers.get("Authorization")))
            if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"line:s3cret word").decode():
                body, status = json.dumps({"errors": [{"message": "who are you"}]}).encode(), 401
            else:
                access = []
                for scope in query.get("scope", ()):
                    kind, what, actions = scope.split(":")
                    access.append({"type": kind, "name": what, "actions": actions.split(",")})
                at = int(time.time())
                claims = {"iss": "plant", "sub": "line", "aud": query["service"][0], "exp": at + 300, "nbf": at - 60,
                          "iat": at, "jti": os.urandom(8).hex(), "access": access}  # fmt: skip
                der = certificate.public_bytes(serialization.Encoding.DER)
                header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
                signed = f"{part(header)}.{part(claims)}"
                r, s = decode_dss_signature(key.sign(signed.encode(), ECDSA(hashes.SHA256())))
                token = f"{signed}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
                body, status = json.dumps({"token": token}).encode(), 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return served(Tokens), certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.programs("docker-registry")
def test_a_registry_that_wants_tokens(registry, keys, new_bundle, tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.asymmetric import ec

    log = []
    tokens, certificate = token_server(ec.generate_private_key(ec.SECP256R1()), log)
    (tmp_path / "root.pem").write_bytes(certificate)
    server = registry(
        f"auth: {{token: {{realm: 'http://127.0.0.1:{tokens.server_port}/token', service: plant-registry, "
        f"issuer: plant, rootcertbundle: {tmp_path}/root.pem}}}}\n"
    )
    url = f"oci://{server.host}/plant/kanoclip"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    try:
        with pytest.raises(FleetError, match=r"401 .who are you. when asked for a token: log in"):
            open_store(url).tags()
        monkeypatch.setenv("KANOCLIP_REGISTRY_USER", "line")
        monkeypatch.setenv("KANOCLIP_REGISTRY_PASSWORD", "s3cret word")
        there_and_back(url, keys, new_bundle, tmp_path)
    finally:
        tokens.shutdown()
    scopes = [scope for (scope,), _ in log[1:]]
    assert "repository:plant/kanoclip:pull" in scopes and "repository:plant/kanoclip:pull,push" in scopes


def test_a_registry_that_sends_elsewhere_gets_no_password(monkeypatch, tmp_path):
    """Blobs that lie on another host are fetched without credentials."""
    seen = []

    class Elsewhere(Quiet):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    elsewhere = served(Elsewhere)

    class Redirects(Quiet):
        def do_GET(self):
            if self.headers.get("Authorization") is None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
            else:
                self.send_response(307)
                self.send_header("Location", f"http://127.0.0.2:{elsewhere.server_port}/blob")
            self.send_header("Content-Length", "0")
            self.end_headers()

    elsewhere2 = served(Redirects)
    monkeypatch.setenv("KANOCLIP_REGISTRY_USER", "line")
    monkeypatch.setenv("KANOCLIP_REGISTRY_PASSWORD", "word")
    # 127.0.0.2 is this machine too, but another host to HTTP.
    other = ThreadingHTTPServer(("127.0.0.2", elsewhere.server_port), Elsewhere)
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    try:
        store = open_store(f"oci://127.0.0.1:{elsewhere2.server_port}/x")
        assert b"".join(store.blob("sha256:" + "0" * 64)) == b"ok"
        assert seen == [None]
    finally:
        for server in (elsewhere, elsewhere2, other):
            server.shutdown()


@pytest.mark.programs("openssl")
def test_tls_is_checked(tmp_path, program, monkeypatch):
    files = ["-keyout", str(tmp_path / "k"), "-out", str(tmp_path / "c")]
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost", *files],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    server = served(Quiet, context)
    try:
        with pytest.raises(FleetError, match=r"does not answer .*certificate"):
            open_store(f"https://127.0.0.1:{server.server_port}/x").tags()
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("following", "tags", "said"),
    [
        ("?last={n}", [], "without end"),
        ("", [], "in a circle"),
        ("?last={n}", ["a"] * 1000, "without end"),
        ("http://[", [], "to another host"),
        ("?last={n}", "abc", "no list of tags"),
        ("?last={n}", [1], "no list of tags"),
        ("?last={n}", ["a\x1b[31m"], "no list of tags"),
    ],
)
def test_a_list_of_tags_that_never_ends(monkeypatch, following, tags, said):
    class Answer:
        status = 200

        def __init__(self, number):
            self.headers = {"Link": f"<{following.format(n=number)}>; rel=next"}

    class Endless:
        def __init__(self, shown):
            self.number = 0

        def request(self, *_):
            self.number += 1
            return Answer(self.number)

        def text(self, *_):
            return json.dumps({"tags": tags}).encode()

    monkeypatch.setattr("kanoclip.runtime.ops.fleet.stores.registry.Web", Endless)
    with pytest.raises(FleetError, match=said):
        open_store("oci+http://127.0.0.1:9/x").tags()


def test_an_answer_that_comes_byte_by_byte_has_an_end(monkeypatch):
    web = pytest.importorskip("kanoclip.runtime.ops.fleet.stores.web")
    pytest.importorskip("urllib3")

    class Drip:
        closed = False

        def read1(self, most, *, decode_content):
            return b" "

        def close(self):
            self.closed = True

    monkeypatch.setattr(web, "SMALL_ANSWER_S", 0.01)
    with pytest.raises(FleetError, match=r"takes over 0\.01 s for a small answer: try again later"):
        web.Web("oci://drip/x").text(answer := Drip(), 1 << 30)
    assert answer.closed
