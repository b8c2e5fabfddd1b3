"""Takes the results of ``mrviz study paper`` into the package, and its verdicts into docs/paper.md.

Run it as ``python tools/paper.py FOLDER``, the folder of a finished study of the default size, or
without a folder to write the page from the results that are in the package.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mrviz.paper import study  # noqa: E402
from mrviz.paper.report import as_markdown  # noqa: E402
from mrviz.paper.settings import settings_of  # noqa: E402

PAGE = ROOT / "docs" / "paper.md"
START, END = "<!-- answers -->\n", "<!-- /answers -->"


def main() -> None:
    """Copies the tables, keeps their answers and writes the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else study.STORED
    about = study.about(folder)
    left = study.missing(folder, settings_of(about["size"]))
    if about["size"] != "default" or left:
        raise SystemExit(f"{folder} holds no finished study of the default size: {left or about}")
    if folder != study.STORED:
        study.STORED.mkdir(exist_ok=True)
        for name in (*(f"{table}.csv" for table in study.TABLES), study.ABOUT):
            shutil.copyfile(folder / name, study.STORED / name)
    answers = study.answers(study.load())
    study.write_answers(study.STORED, answers)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    text = f"{before}{START}{as_markdown(answers, about)}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")
    print(f"{len(answers)} answers in {study.STORED} and {PAGE}")


if __name__ == "__main__":
    main()
