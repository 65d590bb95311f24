"""Builds the site: `python docs FOLDER`. A warning is an error, such as a link to nowhere."""

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
