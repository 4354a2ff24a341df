#!/usr/bin/env python3
"""The licences and notices of all crates that are linked into the binary, on standard output.

    deploy/package/notices.py

Most licences ask that their text goes with the binary. Each text stands here once, below the names of
the crates that bring it.
"""

import json
import pathlib

import crates

TEXTS = ("license", "licence", "copying", "copyright", "notice")
CODE = {".c", ".h", ".rs", ".py", ".sh"}


def texts(folder: pathlib.Path) -> list[str]:
    """A crate's licences and notices, also those of code in another language that it brings."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.name.lower().startswith(TEXTS) and path.suffix not in CODE and path.is_file():
            text = path.read_text(errors="replace").strip("\n")
            # zstd and lz4 may be taken under BSD's licence or the GPL, and are under BSD's here.
            if "GNU GENERAL PUBLIC LICENSE" not in text[:200]:
                found.append(text)
    return found


def main() -> None:
    _, compiled = crates.read()
    linked = [crate for crate in compiled if crate.linked and crate.checksum]
    packages = json.loads(crates.cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    folders = {(p["name"], p["version"]): pathlib.Path(p["manifest_path"]).parent for p in packages}
    bringing: dict[str, tuple[str, list[str]]] = {}  # by the words of a text: it, and who brings it
    print("Lakeward's binary holds these crates, each under the licence behind its name. Where there is a")
    print("choice, and Apache-2.0 is among it, they are handed on under Apache-2.0. Their texts are below.\n")
    for crate in linked:
        title = f"{crate.name} {crate.version}"
        print(f"  {title}  ({crate.licence}) {crate.repository}".rstrip())
        for text in texts(folders[crate.name, crate.version]):
            bringing.setdefault(" ".join(text.split()), (text, []))[1].append(title)
    for text, names in bringing.values():
        print("\n" + "-" * 80)
        print("\n".join(dict.fromkeys(names)) + "\n")
        print(text)


main()
