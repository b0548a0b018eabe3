"""Find the Chromium that the tests drive; run as a script, install it where that is possible."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"

HOW = """The tests open the book in Chromium, and none was found. Either install it

    Debian, Ubuntu:  sudo apt-get install chromium     (Ubuntu: chromium-browser)
    Fedora:          sudo dnf install chromium
    macOS:           brew install --cask google-chrome

or point at one that you have:  make test CHROMIUM=/path/to/chromium"""


def find() -> str | None:
    """The browser's path: the one named by $CHROMIUM, or one of the usual names."""
    if named := os.environ.get("CHROMIUM"):
        return shutil.which(named)
    return next(filter(None, map(shutil.which, (*NAMES, MACOS))), None)


def install() -> None:
    """Ask Debian's package manager, where there is one and it may be used."""
    if os.environ.get("CHROMIUM") or os.geteuid() or not shutil.which("apt-get"):
        return
    print("Installing Chromium for the tests with apt-get.", flush=True)
    quiet = {
        "stdout": subprocess.DEVNULL,
        "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    }
    subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
    command = ["apt-get", "install", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu"]
    subprocess.run(command, check=False, **quiet)


def main() -> None:
    if not find():
        install()
    if not find():
        sys.exit(HOW)


if __name__ == "__main__":
    main()
