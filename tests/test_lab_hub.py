"""A hub that is there, one that is not, and all that may answer in its place: small servers on this machine."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import close_session, constants
from lab_models import save_model

from peft_edu.lab.models import hub
from peft_edu.lab.models.backbones import backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_SOCKET = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """Online, with nothing in the cache, and with little patience."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "SILENCE", 1)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(answer):
    """`answer(request)` writes what the hub says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(request, status=200, body=b"", **headers):
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def point_to(monkeypatch, endpoint):
    """As HF_ENDPOINT does, which is read when the hub's client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def said(monkeypatch, endpoint):
    """The sentence, and that it came soon."""
    point_to(monkeypatch, endpoint)
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        backbone("some/model")
    assert time.monotonic() - start < hub.SILENCE + 8  # on a busy machine
    message = str(caught.value)
    assert "Bundled: tiny-bert, tiny-gpt2, tiny-t5; they need no network" in message and "\n" not in message
    return message.partition("It is no folder here, and ")[2]


@pytest.mark.parametrize(
    "status, meaning",
    [
        (401, "answered 401: it has no model of this name, or one that asks who you are"),
        (403, "answered 403: you may not read this model"),
        (404, "answered 404: it has no model of this name"),
        (429, "answered 429: your network asked too often; wait some minutes"),
        (500, "answered 500: it has trouble of its own; try again later"),
        (503, "answered 503: it has trouble of its own; try again later"),
    ],
)
def test_each_status_has_its_sentence(monkeypatch, status, meaning):
    with serving(lambda request: reply(request, status)) as endpoint:
        assert meaning in said(monkeypatch, endpoint)


def login(request):
    if request.path == "/login":
        reply(request, body=b"<html>Welcome to our hotel</html>", Content_Type="text/html")
    else:
        reply(request, 302, Location="/login")


def endless(request):
    reply(request, 302, Location=request.path + "x")


def other_json(request):
    reply(request, body=b'{"logged_in": false}', Content_Type="application/json")


def truncated(request):
    request.wfile.write(OLD_SOCKET + b'{"id": "so')
    request.close_connection = True


@pytest.mark.parametrize(
    "answer, meaning",
    [
        (login, "something else did: is it the login page of your network?"),
        (other_json, "something else did: is it the login page of your network?"),
        (endless, "was not reached: Exceeded maximum allowed redirects"),
        (truncated, "was not reached: "),
    ],
)
def test_what_is_no_hub_is_told_from_one(monkeypatch, answer, meaning):
    with serving(answer) as endpoint:
        assert meaning in said(monkeypatch, endpoint)


def silent(request):
    time.sleep(4)


def byte_a_second(request):
    request.wfile.write(OLD_SOCKET)
    for _ in range(4):
        request.wfile.write(b"{")
        time.sleep(0.9)


@pytest.mark.parametrize("answer", [silent, byte_a_second])
def test_a_silent_hub_is_left(monkeypatch, answer):
    with serving(answer) as endpoint:
        assert said(monkeypatch, endpoint).endswith("was silent for 1 seconds")


def test_a_name_server_that_never_answers_is_left(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(4))
    assert said(monkeypatch, "https://hub.example").endswith("was silent for 1 seconds")


def test_patience_ends_within_twenty_seconds():
    source = hub.__loader__.get_source(hub.__name__)
    assert "SILENCE = 15 " in source  # the tests above have less


def test_nobody_there_no_name_and_a_dead_proxy_are_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "was not reached: " in said(monkeypatch, f"http://127.0.0.1:{port}")
    assert "was not reached: " in said(monkeypatch, "https://hub.example")  # tests have no name server
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    close_session()
    assert "was not reached through the proxy that your environment names" in said(monkeypatch, "https://hub.example")
    close_session()


@pytest.fixture
def model_hub(tmp_path):
    """A hub with one small model; `slow` may change how the weights are sent."""
    folder = save_model(tmp_path / "served", "gpt2")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}  # config.json comes first
    how = {"weights": reply}

    def answer(request):
        name = request.path.rpartition("/")[2]
        if request.path.startswith("/api/models/some/model"):
            siblings = [{"rfilename": file} for file in [*files, "onnx/config.json", "pytorch_model.bin"]]
            body = json.dumps({"id": "some/model", "sha": COMMIT, "siblings": siblings}).encode()
            return reply(request, body=body, Content_Type="application/json")
        if name not in files:
            return reply(request, 404, X_Error_Code="EntryNotFound")
        body = files[name]
        send = how["weights"] if name == "model.safetensors" and request.command == "GET" else reply
        return send(request, body=body, ETag=f'"{sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    with serving(answer) as endpoint:
        yield endpoint, how


def test_a_model_of_the_hub_comes_and_stays_in_the_cache(monkeypatch, model_hub):
    endpoint, _ = model_hub
    point_to(monkeypatch, endpoint)
    model, tokenizer = backbone("some/model")
    assert type(model).__name__ == "GPT2LMHeadModel" and len(tokenizer) == 30
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(lambda request: reply(request, 503)) as broken:
        point_to(monkeypatch, broken)
        assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"


def test_weights_that_stop_coming_are_left(monkeypatch, model_hub, tmp_path):
    endpoint, how = model_hub

    def half(request, body, **headers):
        request.wfile.write(OLD_SOCKET.replace(b"100000", str(len(body)).encode()) + body[: len(body) // 2])
        request.wfile.flush()
        time.sleep(4)

    how["weights"] = half
    assert said(monkeypatch, endpoint).endswith("was silent for 1 seconds")
    assert any((tmp_path / "cache").rglob("*.incomplete"))


def test_a_name_that_no_hub_can_have(monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="no backbone 'a/b/c'.*can have no model of this name"):
        backbone("a/b/c")
