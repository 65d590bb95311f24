"""The site, built once for all the tests that look at it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from built_pages import Page
from filelock import FileLock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site; the processes of a run share it."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "index.html").exists():
            done = subprocess.run(
                [sys.executable, "docs", str(folder)], cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site):
    return [Page(path) for path in sorted(site.rglob("*.html"))]
