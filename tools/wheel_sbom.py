"""The SBOM (CycloneDX 1.6, JSON) of wheels: the packages, what is compiled into them, and their hashes."""

from __future__ import annotations

import email
import hashlib
import re
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

# What is compiled into the wheels and has no wheel of its own: where its version stands, and its licence.
_COMPILED_IN = {
    "ltm-edge": (("hnswlib", "cmake/hnswlib.cmake", r"LTM_HNSWLIB_VERSION ([0-9.]+)\)", "Apache-2.0"),),
}


def sbom(wheels: Sequence[Path], root: Path) -> str:
    """The SBOM of wheels built from the sources in ``root``, as JSON text. The same wheels give the same text, times
    apart.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, "/".join(sorted(_sha256(wheel) for wheel in wheels))))
    for wheel in sorted(wheels):
        metadata = _metadata(wheel)
        name, version = str(metadata["Name"]).lower().replace("_", "-"), str(metadata["Version"])
        own = _component(name, version, str(metadata["License-Expression"] or metadata["License"] or "MIT"))
        own.bom_ref.value = wheel.name
        own.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=_sha256(wheel)))
        bom.components.add(own)
        inside = [_from_source(root, *what) for what in _COMPILED_IN.get(name, ())]
        if name == "llama-cpp-python":
            inside.append(_component("llama.cpp", _llama_version(wheel), "MIT", pypi=False))
        inside += [_component(library, "", "", pypi=False) for library in _bundled(wheel)]
        for component in inside:
            component.bom_ref.value = f"{wheel.name}#{component.name}"
            bom.components.add(component)
        bom.register_dependency(own, inside)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n"


def _component(name: str, version: str, licence: str, *, pypi: bool = True) -> Component:
    return Component(
        name=name,
        version=version or None,
        type=ComponentType.LIBRARY,
        licenses=[DisjunctiveLicense(id=licence)] if licence else (),
        purl=PackageURL("pypi", name=name, version=version) if pypi else None,
    )


def _from_source(root: Path, name: str, file: str, pattern: str, licence: str) -> Component:
    found = re.search(pattern, (root / file).read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{file}: no version of {name} in it")
    return _component(name, found[1], licence)


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _llama_version(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/llama-config.cmake"))
        text = archive.read(name).decode("utf-8")
    return "+".join(re.findall(r"set\(LLAMA_(?:VERSION|BUILD_COMMIT)\s+(\S+)\)", text))


def _bundled(wheel: Path) -> list[str]:
    """Libraries of the system that the repair put into the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted({Path(n).name for n in archive.namelist() if re.search(r"^[^/]+\.libs/", n)})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
