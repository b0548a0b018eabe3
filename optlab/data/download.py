"""Downloads that are whole, or not there at all."""

import hashlib
import os
import shutil
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

#: Seconds without an answer after which a download is given up.
PATIENCE = 30


def cache() -> Path:
    """The folder for downloads: ``optlab`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "optlab"


def fetch(url: str, sha256: str, path: Path, advice: str) -> Path:
    """Download a file, unless it is there with this hash.

    It is written beside its place and moved there when its hash is right, in one step: several
    processes may fetch the same file.

    Args:
        url: http, https or file.
        sha256: in hexadecimal.
        path: where the file is to be; folders are made.
        advice: what else the user may do, for the messages: "or ...".

    Returns:
        The path.

    Raises:
        RuntimeError: there is no answer, or what came is cut or altered; nothing is kept then, and
            what was at ``path`` before is still there.
    """
    if path.is_file() and _digest(path) == sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as scratch:
            part = Path(scratch) / path.name
            with urlopen(url, timeout=PATIENCE) as source, part.open("wb") as file:
                shutil.copyfileobj(source, file)
            found = _digest(part)
            if found != sha256:
                raise RuntimeError(
                    f"{url} came cut or altered, and was not kept: its SHA-256 is {found} where "
                    f"{sha256} is expected. Try again, {advice}"
                )
            part.replace(path)
    except (OSError, HTTPException) as error:
        raise RuntimeError(
            f"{url} could not be downloaded to {path.parent}: {error}. Try again, {advice}"
        ) from error
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
