"""The history of a run on disk, as it goes: what a killed run has learned about itself is there to read."""

import sys
from pathlib import Path

from peft_edu.storage.folder import place

COLUMNS = ("step", "loss", "lr", "seconds")


class Log(list[tuple]):
    """Rows of a history, which are also written to history.csv, and where it is installed, to TensorBoard's events."""

    def __init__(self, folder: str | Path, resume: bool = False):
        super().__init__()
        self.folder, self.resume, self.events, self.file = place(folder), resume, None, None

    def begin(self, history: list[tuple]) -> "Log":
        """Open the files. Of a run that goes on, the history so far is written again."""
        csv = self.folder / "history.csv"
        if csv.exists() and not self.resume:
            raise FileExistsError(f"{csv} is the history of a run: name another folder, or resume that run")
        self.folder.mkdir(parents=True, exist_ok=True)
        for events in self.folder.glob("events.out.tfevents.*") if csv.exists() else ():
            events.unlink()
        self.file = csv.open("w", encoding="utf-8")
        print(*COLUMNS, sep=",", file=self.file, flush=True)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(self.folder, flush_secs=5)
        except ImportError:
            tell = "TensorBoard is not installed (pip install 'peft-edu[log]'): the history is in history.csv alone"
            print(tell, file=sys.stderr)
        self.clear()
        for row in history:
            self.append(row)
        return self

    def append(self, row: tuple) -> None:
        super().append(row)
        print(*row, sep=",", file=self.file, flush=True)
        if self.events:
            for name, value in zip(COLUMNS[1:3], row[1:3], strict=True):
                self.events.add_scalar(name, value, row[0])

    def close(self) -> None:
        for each in filter(None, (self.file, self.events)):
            each.close()
