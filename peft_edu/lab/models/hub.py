"""A model of the Hugging Face hub, fetched into its cache; or one sentence on what the network gave instead."""

import threading
from contextlib import suppress
from hashlib import sha1, sha256
from pathlib import Path
from queue import Empty, Queue
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import tqdm

SILENCE = 15  # seconds without a sign of life, after which nobody waits any longer
PIECE = 2**16  # bytes that are a sign of life, and that a broken download loses at most
ENDINGS = (".json", ".safetensors", ".model", ".txt", "README.md")
LAST = ("model.safetensors", "model.safetensors.index.json")  # fetched last: where one lies, all others do
AGAIN = "nothing half is kept, so try once more"
MEANINGS = {
    401: "it has no model of this name, or one that asks who you are (`hf auth login`)",
    403: "you may not read this model; its page tells how to be let in",
    404: "it has no model of this name",
    429: "your network asked too often; wait some minutes",
}


def fetch(name: str, whole: bool = True) -> Path:
    """The model's folder in the hub's cache, or a ConnectionError. An answer comes soon, whatever the network does.

    Without `whole` it is its configuration alone.
    """
    said: Queue = Queue()  # None for each piece that arrives; at last the folder, or an error
    if constants.HF_HUB_OFFLINE:
        said.put(ConnectionError("is not asked: offline, only models in its cache can be used"))
    else:  # in a thread that can be left behind: a name server, a proxy or a hub may never answer
        threading.Thread(target=_download, args=(name, whole, said), daemon=True).start()
    try:
        while (came := said.get(timeout=SILENCE)) is None:
            pass
    except Empty:
        came = ConnectionError(f"was silent for {SILENCE} seconds")
    if isinstance(came, Path):
        return came
    with suppress(HFValidationError):
        for last in LAST if whole else ("config.json",):
            if isinstance(kept := try_to_load_from_cache(name, last), str):
                return Path(kept).parent
    raise ConnectionError(f"the Hugging Face hub ({constants.ENDPOINT}) {_in_words(came)}") from came


def _download(name: str, whole: bool, said: Queue) -> None:
    class Watched(tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options | {"disable": False})  # the client's own needs a terminal

        def update(self, n: float | None = 1) -> bool | None:
            said.put(None)
            return super().update(n)

    constants.DOWNLOAD_CHUNK_SIZE = PIECE  # the client's own 10 MB would look like silence on a slow line
    file = None
    try:
        model = HfApi().model_info(name, files_metadata=True)
        wanted = {each.rfilename: each for each in model.siblings if _is_wanted(each.rfilename, whole)}
        if "config.json" not in wanted:
            raise ConnectionError("has no config.json under this name: what lies there is no model of transformers")
        for file in sorted(wanted, key=lambda file: file in LAST):
            kept = try_to_load_from_cache(name, file, revision=model.sha)
            path = Path(hf_hub_download(name, file, tqdm_class=Watched))
            if kept is None and not _is_what_was_named(path, wanted[file], said):
                path.resolve().unlink()
                path.unlink(missing_ok=True)
                raise ConnectionError(f"sent another {file} than it had named (its checksum differs): {AGAIN}")
        said.put(path.parent)
    except Exception as error:
        said.put(error if file is None else _broken_off(error, file))


def _is_wanted(file: str, whole: bool) -> bool:
    return file == "config.json" or (whole and "/" not in file and file.endswith(ENDINGS))


def _is_what_was_named(path: Path, named: RepoSibling, said: Queue) -> bool:
    """Large files are named by the SHA-256 of their bytes, others as git names them."""
    if named.size is not None and path.stat().st_size != named.size:
        return False
    digest = sha256() if named.lfs else sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(2**24):
            said.put(None)
            digest.update(piece)
    return digest.hexdigest() == (named.lfs.sha256 if named.lfs else named.blob_id or digest.hexdigest())


def _broken_off(error: Exception, file: str) -> Exception:
    """What ended a download that had begun: the hub's answer, or whatever befell the connection."""
    error = _root(error)
    if _status(error) or type(error) is ConnectionError:
        return error
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ConnectionError(f"broke off in the middle of {file} ({reason}): {AGAIN}")


def _root(error: BaseException) -> BaseException:
    while error.__cause__:  # the client wraps what happened in errors of its own
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _in_words(error: Exception) -> str:
    error = _root(error)
    if status := _status(error):
        return f"answered {status}: {MEANINGS.get(status, 'it has trouble of its own; try again later')}"
    if isinstance(error, HFValidationError):
        return f"can have no model of this name ({error})"
    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError)):
        return "did not answer, something else did: is it the login page of your network?"
    proxy = " through the proxy that your environment names (HTTPS_PROXY)" if getproxies() else ""
    return str(error) if type(error) is ConnectionError else f"was not reached{proxy}: {error or type(error).__name__}"
