"""A model of the Hugging Face hub, fetched into its cache; or one sentence on what the network gave instead."""

import threading
from pathlib import Path
from queue import Empty, Queue
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import tqdm

SILENCE = 15  # seconds without a sign of life, after which nobody waits any longer
ENDINGS = (".json", ".safetensors", ".model", ".txt", "README.md")
MEANINGS = {
    401: "it has no model of this name, or one that asks who you are (`hf auth login`)",
    403: "you may not read this model; its page tells how to be let in",
    404: "it has no model of this name",
    429: "your network asked too often; wait some minutes",
}


def fetch(name: str) -> Path:
    """The model's folder in the hub's cache, or a ConnectionError. An answer comes soon, whatever the network does."""
    said: Queue = Queue()  # None for each piece that arrives; at last the folder, or an error
    if constants.HF_HUB_OFFLINE:
        said.put(ConnectionError("is not asked: offline, only models in its cache can be used"))
    else:  # in a thread that can be left behind: a name server, a proxy or a hub may never answer
        threading.Thread(target=_download, args=(name, said), daemon=True).start()
    try:
        while (came := said.get(timeout=SILENCE)) is None:
            pass
    except Empty:
        came = ConnectionError(f"was silent for {SILENCE} seconds")
    if isinstance(came, Path):
        return came
    try:
        return Path(hf_hub_download(name, "config.json", local_files_only=True)).parent
    except Exception as missing:
        raise ConnectionError(f"the Hugging Face hub ({constants.ENDPOINT}) {_in_words(came)}") from missing


def _download(name: str, said: Queue) -> None:
    class Watched(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            said.put(None)
            return super().update(n)

    constants.DOWNLOAD_CHUNK_SIZE = 2**16  # a sign of life for each: on a slow line 10 MB would look like silence
    try:
        for file in [each.rfilename for each in HfApi().model_info(name).siblings]:
            if "/" not in file and file.endswith(ENDINGS) and file != "config.json":
                hf_hub_download(name, file, tqdm_class=Watched)
        config = hf_hub_download(name, "config.json", tqdm_class=Watched)  # the last: where it lies all others do
        said.put(Path(config).parent)
    except Exception as error:
        said.put(error)


def _in_words(error: Exception) -> str:
    while error.__cause__:  # the client wraps what happened in errors of its own
        error = error.__cause__
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return f"answered {status}: {MEANINGS.get(status, 'it has trouble of its own; try again later')}"
    if isinstance(error, HFValidationError):
        return f"can have no model of this name ({error})"
    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError)):
        return "did not answer, something else did: is it the login page of your network?"
    proxy = " through the proxy that your environment names (HTTPS_PROXY)" if getproxies() else ""
    return str(error) if type(error) is ConnectionError else f"was not reached{proxy}: {error or type(error).__name__}"
