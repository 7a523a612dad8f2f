"""peft-edu: open the lessons in JupyterLab, get the real models, hand exercises out and grade them.

    peft-edu lab [LESSON]           your copies of the lessons, in the folder `workbook`
    peft-edu workbook FOLDER        lay out the copies alone, or what is newer; JupyterLab is not opened
    peft-edu real                   two real models, 180 MB, from the Python Package Index
    peft-edu release [EXERCISE]     students' copies of the exercises, as a zip
    peft-edu grade FOLDER EXERCISE  what they handed in: marks, and a reason for each

`peft-edu COMMAND --help` says the rest. To train from the command line: `python -m peft_edu.train --help`.
"""

import sys

from peft_edu_app.places import NOTEBOOKS


def main(words: list[str] | None = None) -> int:
    command, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if command == "lab":
        from peft_edu_app.lab import main as run
    elif command == "workbook":
        from peft_edu_app.lab import only_copies as run
    elif command == "real":
        from peft_edu_app.real_models import main as run
    elif command in ("release", "grade"):
        from peft_edu.classroom.__main__ import main as run

        rest = [command, "--from", str(NOTEBOOKS / "exercises"), *rest]
    else:
        print(__doc__.strip())
        if command in ("-h", "--help"):
            return 0
        print(f"\npeft-edu: there is no command {command!r}", file=sys.stderr)
        return 2
    return run(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
