"""Take copies out of a wheel of llama-cpp-python and give it a build tag that says which CPUs it is for.

Usage: python tools/slim_wheel.py WHEEL FOLDER BUILD_TAG

A wheel can't hold symbolic links, so each library stands in it three times: libllama.so, libllama.so.0 and
libllama.so.0.5.0. The package opens the first, other libraries ask for the second, nothing asks for the third. Of back
ends that are loaded by path only the first is wanted. A second set in lib/ is there to link against: of it only the
first names stay, and only of what ltm-edge links. Headers and CMake files stay.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

_UNWANTED = (
    re.compile(r"\.so\.\d+\.\d+.*$"),
    re.compile(r"libggml-cpu-[^/]*\.so\.\d+$"),
    re.compile(r"^lib/[^/]*\.so\.\d+$"),
    re.compile(r"^lib/lib(llama-common|mtmd)\."),
)


def unwanted(name: str) -> bool:
    """Whether a file of the wheel is a copy that nothing opens."""
    return any(pattern.search(name) for pattern in _UNWANTED)


def slim(wheel: Path, folder: Path, build: str) -> Path:
    """A wheel without the copies, with the build tag ``build`` (it begins with a digit) in its name and metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    name, version, *tags = wheel.stem.split("-")
    target = folder / f"{'-'.join((name, version, build, *tags[-3:]))}.whl"
    record = f"{name}-{version}.dist-info/RECORD"
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for info in source.infolist():
            if info.is_dir() or info.filename == record or unwanted(info.filename):
                continue
            data = source.read(info)
            if info.filename.endswith(".dist-info/WHEEL"):
                data = b"".join(line for line in data.splitlines(True) if not line.startswith(b"Build:"))
                data = data.rstrip(b"\n") + f"\nBuild: {build}\n".encode()
            out.writestr(info, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((info.filename, f"sha256={digest}", str(len(data))))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        out.writestr(record, text.getvalue())
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{slim(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])}\n")
