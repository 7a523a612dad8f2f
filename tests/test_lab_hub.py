"""A hub that is there, one that is not, and all that may answer in its place: small servers on this machine."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants, file_download
from lab_models import save_model

from peft_edu import LoRA
from peft_edu.lab import memory_of_training
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
    monkeypatch.setattr(hub, "PIECE", 2**10)
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
    told, offer, name = message.partition("It is no folder here, and ")[2].partition(". To go on without it, ")
    assert offer and name == "take a bundled one: backbone('tiny-gpt2')"
    return told


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
    """A hub with one small model: `how` may change how its weights are sent, `named` what it says of a file."""
    folder = save_model(tmp_path / "served", "gpt2")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    how, named, asked = {"weights": reply}, {name: told(name, body) for name, body in files.items()}, []

    def answer(request):
        name = request.path.rpartition("/")[2]
        if request.path.startswith("/api/models/some/model"):
            siblings = [*named.values(), {"rfilename": "onnx/config.json"}, {"rfilename": "pytorch_model.bin"}]
            body = json.dumps({"id": "some/model", "sha": COMMIT, "siblings": siblings}).encode()
            return reply(request, body=body, Content_Type="application/json")
        if name not in files:
            return reply(request, 404, X_Error_Code="EntryNotFound")
        body, first = files[name], request.command == "GET" and name == "model.safetensors"
        if request.command == "GET":
            asked.append((name, request.headers.get("Range")))
        send = how["weights"] if first else reply
        return send(request, body=body, ETag=f'"{sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    with serving(answer) as endpoint:
        yield endpoint, how, named, asked


def told(name, body):
    """What the hub names a file by."""
    if name.endswith(".safetensors"):
        digest = {"lfs": {"sha256": sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}}
    else:
        digest = {"blobId": sha1(b"blob %d\0" % len(body) + body).hexdigest()}
    return {"rfilename": name, "size": len(body), **digest}


def test_a_model_of_the_hub_comes_and_stays_in_the_cache(monkeypatch, model_hub, capsys):
    endpoint, *_ = model_hub
    point_to(monkeypatch, endpoint)
    model, tokenizer = backbone("some/model")
    said = capsys.readouterr()
    assert f"some/model: GPT2LMHeadModel, {model.num_parameters():,} parameters in float32, on cpu\n" in said.err
    assert "model.safetensors: 100%" in said.err and not said.out
    assert type(model).__name__ == "GPT2LMHeadModel" and len(tokenizer) == 30
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(lambda request: reply(request, 503)) as broken:
        point_to(monkeypatch, broken)
        assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"


def test_weights_that_stop_coming_are_left(monkeypatch, model_hub, tmp_path):
    endpoint, how, *_ = model_hub

    def half(request, body, **headers):
        request.wfile.write(OLD_SOCKET.replace(b"100000", str(len(body)).encode()) + body[: len(body) // 2])
        request.wfile.flush()
        time.sleep(4)

    how["weights"] = half
    assert said(monkeypatch, endpoint).endswith("was silent for 1 seconds")
    assert any((tmp_path / "cache").rglob("*.incomplete"))


def cut(request, body, **headers):
    """The connection ends in the middle, whatever was asked for."""
    request.send_response(200)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])
    request.close_connection = True


def rest(request, body, **headers):
    """What was asked for by Range."""
    start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= len(body) // 2
    reply(request, 206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", **headers)


@pytest.fixture
def no_pause(monkeypatch):
    """The hub's client waits a second before it asks for the rest."""
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.mark.parametrize("second", [rest, reply], ids=["the rest", "all of it again"])
def test_a_download_that_is_cut_goes_on(monkeypatch, model_hub, no_pause, second):
    endpoint, how, _, asked = model_hub
    answers = iter([cut, second])
    how["weights"] = lambda request, **what: next(answers)(request, **what)
    point_to(monkeypatch, endpoint)
    assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"
    assert [what is None for name, what in asked if name == "model.safetensors"] == [True, False]


def test_a_download_that_is_cut_for_good_is_refused_and_leaves_nothing_half(monkeypatch, model_hub, no_pause, tmp_path):
    endpoint, how, *_ = model_hub
    how["weights"] = lambda request, body, **what: cut(request, body if "Range" not in request.headers else b"", **what)
    monkeypatch.setattr(hub, "SILENCE", 15)
    assert "broke off in the middle of model.safetensors (" in (told := said(monkeypatch, endpoint))
    assert told.endswith(": nothing half is kept, so try once more")
    assert not [*(tmp_path / "cache").rglob("*.incomplete"), *(tmp_path / "cache").rglob("model.safetensors")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert said(monkeypatch, endpoint).endswith("offline, only models in its cache can be used")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    how["weights"] = reply
    assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"


def changed(request, body, **headers):
    reply(request, body=body[:-1] + bytes([body[-1] ^ 1]), **headers)


def test_other_bytes_than_the_hub_named_are_refused_and_not_kept(monkeypatch, model_hub, tmp_path):
    endpoint, how, *_ = model_hub
    how["weights"] = changed
    for _ in range(2):  # the second time no better than the first
        assert "sent another model.safetensors than it had named (its checksum differs)" in said(monkeypatch, endpoint)
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    how["weights"] = reply
    assert type(backbone("some/model")[0]).__name__ == "GPT2LMHeadModel"


@pytest.mark.parametrize("file, wrong", [("model.safetensors", {"size": 7}), ("tokenizer.json", {"blobId": "0" * 40})])
def test_another_size_and_another_small_file_are_refused(monkeypatch, model_hub, file, wrong):
    endpoint, _, named, _ = model_hub
    named[file] |= wrong
    assert f"sent another {file} than it had named" in said(monkeypatch, endpoint)


def test_a_file_shorter_than_announced_is_refused(monkeypatch, model_hub):
    endpoint, how, *_ = model_hub
    how["weights"] = lambda request, body, **headers: reply(request, body=body[:-8], **headers)
    assert "broke off in the middle of model.safetensors (Consistency check failed" in said(monkeypatch, endpoint)


def test_what_is_no_model_is_told(monkeypatch, model_hub):
    endpoint, _, named, _ = model_hub
    del named["config.json"]
    assert said(monkeypatch, endpoint).endswith("what lies there is no model of transformers")


def test_memory_is_foretold_from_the_configuration_alone(monkeypatch, model_hub):
    endpoint, _, _, asked = model_hub
    point_to(monkeypatch, endpoint)
    foretold = memory_of_training("some/model", LoRA(rank=2), batch=(2, 8))
    assert [name for name, _ in asked] == ["config.json"] and foretold.weights > 0
    with serving(lambda request: reply(request, 503)) as broken:
        assert "answered 503" in said(monkeypatch, broken)  # a configuration is no model
        assert memory_of_training("some/model", LoRA(rank=2), batch=(2, 8)) == foretold


def test_a_name_that_no_hub_can_have(monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="no backbone 'a/b/c'.*can have no model of this name"):
        backbone("a/b/c")
