"""Builds the site: `python docs FOLDER`. Any warning, such as a broken link, is an error."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from assemble import assemble
from sphinx.cmd.build import main

if len(sys.argv) != 2:
    sys.exit("Usage: python docs FOLDER")
with TemporaryDirectory() as sources:
    assemble(Path(sources))
    options = ("--fail-on-warning", "--keep-going", "--quiet")
    sys.exit(main([*options, "--conf-dir", str(Path(__file__).parent), sources, sys.argv[1]]))
