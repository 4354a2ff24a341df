#!/usr/bin/env python3
"""What Lakeward is made of, as CycloneDX 1.5 in JSON, on standard output.

    SOURCE_DATE_EPOCH=… deploy/package/sbom.py

cargo-cyclonedx would do most of this, but it reads `cargo metadata`, which counts features that only the
tests turn on (three crates too many), names folders of the machine it runs on, writes into the checkout,
and has to be built first. A crate that only runs while Lakeward is compiled (of a build script, a
macro) has the scope `excluded`.
"""

import datetime
import json
import os
import uuid

import crates
from crates import Crate


def reference(crate: Crate) -> str:
    """Its name for the whole world, or among ourselves if it is in no registry."""
    name = f"{crate.name}@{crate.version}"
    return f"pkg:cargo/{name}" if crate.checksum else name


def component(crate: Crate) -> dict:
    about = {
        "type": "library",
        "bom-ref": reference(crate),
        "name": crate.name,
        "version": crate.version,
        "scope": "required" if crate.linked else "excluded",
    }
    if crate.checksum:
        about["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
    if crate.licence:
        about["licenses"] = [{"expression": crate.licence}]
    if crate.checksum:
        about["purl"] = reference(crate)
    if crate.repository:
        about["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
    return about


def bill(program: Crate, all_crates: list[Crate]) -> dict:
    references = {(crate.name, crate.version): reference(crate) for crate in [program, *all_crates]}
    whole = component(program) | {"type": "application"}
    del whole["scope"]
    when = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    cargo = crates.cargo("--version").split()[1]
    content = {
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "cargo", "version": cargo}]},
            "component": whole,
        },
        "components": [component(crate) for crate in all_crates],
        "dependencies": [
            {"ref": reference(crate), "dependsOn": sorted(references[name] for name in crate.needs)}
            for crate in [program, *all_crates]
        ],
    }
    # The same content has the same number, so that a release can be made again.
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{number}", "version": 1}
    return head | content


print(json.dumps(bill(*crates.read()), indent=2))
