"""The crates that the binary is made of, as cargo resolves them for this machine.

`cargo tree` says it for a build without the tests' own dependencies; `cargo metadata` would count
features that only the tests turn on.
"""

import dataclasses
import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]

Name = tuple[str, str]  # and version


@dataclasses.dataclass
class Crate:
    name: str
    version: str
    licence: str
    repository: str
    checksum: str | None  # of the file that the registry gave; None for Lakeward's own
    linked: bool = False  # whether it is a part of the program, or only runs while that is compiled
    needs: set[Name] = dataclasses.field(default_factory=set)


def cargo(*arguments: str) -> str:
    """What cargo answers about this checkout."""
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def tree(edges: str) -> list[tuple[int, Name, list[str]]]:
    """The lines of cargo's tree: how deep, which crate, and its licence and repository."""
    found = []
    for line in cargo("tree", "--locked", "--edges", edges, "--prefix", "depth", "--format", "|{p}|{l}|{r}|").splitlines():
        depth, package, *about = line.split("|")
        name, version = package.split()[:2]
        found.append((int(depth), (name, version.removeprefix("v")), about))
    return found


def checksums() -> dict[Name, str]:
    """What Cargo.lock holds each crate of a registry to."""
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(p["name"], p["version"]): p["checksum"] for p in locked if "checksum" in p}


def read() -> tuple[Crate, list[Crate]]:
    """The program, and all crates that are compiled for it in the order of their names."""
    known, sums, above = {}, checksums(), []
    for depth, name, (licence, repository, _) in tree("normal,build"):
        # Before SPDX had expressions, a slash was the crates' way to say "or".
        licence = licence.replace(" / ", "/").replace("/", " OR ")
        known.setdefault(name, Crate(*name, licence, repository, sums.get(name)))
        del above[depth:]
        if above:
            known[above[-1]].needs.add(name)
        above.append(name)
    for _, name, _ in tree("normal,no-proc-macro"):
        known[name].linked = True
    program, *crates = known.values()
    return program, sorted(crates, key=lambda crate: (crate.name, crate.version))
