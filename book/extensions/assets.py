"""Served files: take the scripts that pages load from npm packages into book/static/vendor.

Versions and hashes are in package.json and package-lock.json.  No page asks any other host for
anything, so a reader needs no network beyond the book's own address.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from book.extensions import ROOT, VENDOR

MODULES = ROOT / "node_modules"
#: Says which versions are there; the last file to be written.
MARK = "versions.txt"
#: What is taken: from node_modules, to book/static/vendor.
FILES = {
    "requirejs/require.js": "require.js",
    "@jupyter-widgets/html-manager/dist/embed-amd.js": "embed-amd.js",
    "anywidget/dist/index.js": "anywidget.js",
    "mathjax/es5/tex-chtml.js": "mathjax/tex-chtml.js",
    "mathjax/es5/input/tex/extensions": "mathjax/input/tex/extensions",
    "mathjax/es5/output/chtml/fonts": "mathjax/output/chtml/fonts",
    "mathjax/LICENSE": "mathjax/LICENSE",
}


class AssetsError(Exception):
    """npm could not bring the packages."""


def fetch() -> bool:
    """Bring book/static/vendor up to date; say whether there was anything to do.

    Raises:
        AssetsError: npm failed; its last words are in the message.
    """
    mark = VENDOR / MARK
    want = hashlib.sha256(
        (ROOT / "package-lock.json").read_bytes() + repr(FILES).encode()
    ).hexdigest()
    if mark.exists() and mark.read_text() == want:
        return False
    scripts = Path(sys.executable).parent
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    path = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise AssetsError("npm is missing from the environment: run `make env`")
    done = subprocess.run(
        [npm, *command[1:]],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise AssetsError(f"{' '.join(command)} failed:\n\n{done.stdout.strip()}")
    shutil.rmtree(VENDOR, ignore_errors=True)
    for origin, target in FILES.items():
        here, there = MODULES / origin, VENDOR / target
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_dir():
            shutil.copytree(here, there)
        else:
            shutil.copyfile(here, there)
    mark.write_text(want)
    return True


if __name__ == "__main__":
    try:
        fetch()
    except AssetsError as error:
        sys.exit(str(error))
