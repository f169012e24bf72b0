"""Runs every notebook of the built site through nbval, one on each core, and holds what it prints against what the page shows.

nbval gets the published cells, set-up cell included, with the page's own outputs beside them: a cell that raises fails, and so does
one that prints another number or draws another figure than the page. Cells tagged `nbval-ignore-output` (timings) are only run.
"""

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import nbformat

from book import Page, pages
from build import BuildError, copy_outputs, cores, executed_path, kernel_environment, write_whole
from repository import NOTEBOOKS


def with_outputs(page: Page):
    """The page's published notebook, with the outputs of the page's own run.

    Raises:
        BuildError: if the notebook lacks a cell of the page, or has one that the page has not.
    """
    path = page.root / "_build/html" / NOTEBOOKS / f"{page.name}.ipynb"
    if not path.is_file():
        raise BuildError(f"{page.name} has no notebook; run `make book`")
    notebook = nbformat.read(path, as_version=4)
    run = nbformat.read(executed_path(page), as_version=4)
    shown = [c for c in run.cells if c.cell_type == "code" and "remove-cell" not in c.metadata.get("tags", ())]
    published = [c for c in notebook.cells if c.cell_type == "code"][1:]  # the first is the set-up cell
    if [c.source for c in shown] != [c.source for c in published]:
        raise BuildError(f"{page.name}: the notebook's code cells are not the page's")
    copy_outputs(shown, published)
    return notebook


def run(root: Path, python: str = sys.executable, lax: bool = False) -> int:
    """Returns pytest's exit status, or 1 if the notebooks that ran are not the pages of `_toc.yml`.

    With ``lax`` outputs are not compared: other versions of the packages may print other digits. The assertions still hold.
    """
    folder = root / "_build/nbval"
    expected = Counter()
    for old in folder.rglob("*.ipynb"):
        old.unlink()
    for page in pages(root):
        if page.executable:
            notebook = with_outputs(page)
            write_whole(folder / f"{page.name}.ipynb", nbformat.writes(notebook))
            expected[page.name] = sum(cell.cell_type == "code" for cell in notebook.cells)
    write_whole(folder / "pytest.ini", "[pytest]\n")
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        python,
        "-m",
        "pytest",
        "-p",
        "nbval_history",
        "--nbval-lax" if lax else "--nbval",
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-n",
        str(cores()),
        "--dist=loadscope",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(folder / "pytest.ini"),
        f"--rootdir={folder}",
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
        str(folder),
    ]
    environment = kernel_environment(root / "code", Path(__file__).parent)
    status = subprocess.run(command, env=environment, cwd=folder).returncode

    ran = Counter(case.get("file").removesuffix(".ipynb") for case in ElementTree.parse(report).iter("testcase"))
    if ran != expected:
        print(
            f"The notebooks that ran are not those of _toc.yml. Ran: {dict(ran)}. Expected: {dict(expected)}",
            file=sys.stderr,
        )
        return 1
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the folder that holds _toc.yml"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="run the notebooks with this interpreter; it needs nbval and pytest-xdist",
    )
    parser.add_argument("--lax", action="store_true", help="do not compare outputs")
    arguments = parser.parse_args()
    try:
        sys.exit(run(arguments.root.resolve(), os.path.abspath(arguments.python), arguments.lax))
    except BuildError as error:
        sys.exit(f"deepstat: {error}")
