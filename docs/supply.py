"""The packages that a run stands on: whole, as pinned, without known faults; and who gives them under which licence.

In: constraints.txt, pyproject.toml and the environment that they made. Out: docs/sbom.json (CycloneDX 1.6) and the list in
docs/licences.md, the same bytes on every machine; or, of `make audit`, a line for each thing that was looked at.

Run: python -m docs.supply              `make audit`: exit status 1 if anything is wrong
     python -m docs.supply --write      after a change of constraints.txt: makes both files anew
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BILL, LICENCES = ROOT / "docs/sbom.json", ROOT / "docs/licences.md"
MARKS = "<!-- packages -->\n", "<!-- end of packages -->\n"
READ = {  # what their licence files say, where the package's own data say nothing, or not which
    "antlr4-python3-runtime": "BSD-3-Clause", "conda-inject": "MIT", "docutils": "Public domain, BSD-2-Clause",
    "dvc-http": "Apache-2.0", "grandalf": "GPL-2.0-only OR EPL-1.0", "gto": "Apache-2.0", "huey": "MIT",
    "packaging": "Apache-2.0 OR BSD-2-Clause", "protobuf": "BSD-3-Clause", "psycopg2-binary": "LGPL-3.0-or-later",
    "pygit2": "GPL-2.0-only with linking exception", "pysocks": "BSD-3-Clause", "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "skops": "MIT", "snakemake-interface-common": "MIT", "snakemake-interface-logger-plugins": "MIT",
    "snakemake-interface-report-plugins": "MIT", "snakemake-interface-scheduler-plugins": "MIT",
    "snakemake-interface-storage-plugins": "MIT", "torchvision": "BSD-3-Clause", "transformers": "Apache-2.0",
}  # fmt: skip
CLASSES = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
OSV = "--vulnerability-service osv --no-deps --disable-pip --format json --progress-spinner off"  # for pip-audit
NO_ANSWER = (
    "known faults: NOT looked up, since OSV's service did not answer: repeat `make audit` where there is a network"
)


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Name -> version of constraints.txt."""
    lines = [line.split("==") for line in text.splitlines() if line and not line.startswith("#")]
    return {plain(name): version for name, version in lines}


def wanted(told: dict, extra: str = "") -> list[str]:
    """The names that pyproject.toml asks for itself."""
    asked = told["optional-dependencies"][extra] if extra else told["dependencies"]
    return [plain(re.match(r"[\w.-]+", each)[0]) for each in asked]


def bill(whole: dict, pinned: dict[str, str], told: dict) -> dict:
    """The bill of materials: of all that is installed only what is pinned, and nothing of this machine (a build, a path)."""
    components = [part for part in whole["components"] if plain(part["name"]) in pinned]
    names = {part["bom-ref"]: plain(part["name"]) for part in components}
    needs = {each["ref"]: each.get("dependsOn", []) for each in whole["dependencies"]}
    made, said = [], [{"ref": told["name"], "dependsOn": sorted({*wanted(told), *wanted(told, "dev")})}]
    for part in sorted(components, key=lambda part: plain(part["name"])):
        name, version = plain(part["name"]), part["version"].partition("+")[0]
        entry = {"type": "library", "bom-ref": name, "name": part["name"], "version": version}
        made.append(entry | {"purl": f"pkg:pypi/{name}@{version}", "licenses": [{"license": {"name": licence(part)}}]})
        said.append({"ref": name, "dependsOn": sorted(names[need] for need in needs[part["bom-ref"]] if need in names)})
    ours = {"type": "application", "bom-ref": told["name"], "name": told["name"], "version": told["version"]}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": ours}}
    return head | {"components": made, "dependencies": said}


def licence(part: dict) -> str:
    """What a package says of itself: SPDX's words where it has them, else its class."""
    if plain(part["name"]) in READ:
        return READ[plain(part["name"])]
    said = [
        each.get("expression") or each["license"].get("id") or each["license"]["name"]
        for each in part.get("licenses", [])
    ]
    exact = [text for text in said if not text.startswith("License :: ")]
    classes = [text.rpartition(" :: ")[2] for text in said]
    return ", ".join(exact or [CLASSES.get(text, text) for text in classes])


def listed(made: dict, told: dict) -> str:
    """The table of docs/licences.md: each package, its licence, and who asks for it."""
    asked = dict.fromkeys(wanted(told, "dev"), "tests and checks") | dict.fromkeys(wanted(told), "a run")
    lines = ["| package | version | licence | asked for by |", "|---|---|---|---|"]
    for part in made["components"]:
        cells = part["name"], part["version"], part["licenses"][0]["license"]["name"]
        lines.append(f"| {' | '.join(cells)} | {asked.get(part['bom-ref'], 'another package')} |")
    return "\n".join(lines) + "\n"


def with_list(page: str, table: str) -> str:
    """The page with its list of packages as it is now."""
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + table + MARKS[1] + rest.split(MARKS[1])[1]


def environment() -> dict:
    """All that is installed here, as CycloneDX's own program tells it."""
    words = ["environment", "--output-reproducible", "--no-validate"]
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *words, sys.executable], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"cyclonedx_py failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def made() -> dict[Path, str]:
    """Both files as they should be."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = bill(environment(), pins((ROOT / "constraints.txt").read_text()), told)
    table = with_list(LICENCES.read_text(), listed(found, told))
    return {BILL: json.dumps(found, indent=1, ensure_ascii=False) + "\n", LICENCES: table}


def not_as_pinned(pinned: dict[str, str]) -> list[str]:
    """Each pinned package that is missing here or has another version."""
    have = {plain(each.metadata["Name"]): each.version.partition("+")[0] for each in metadata.distributions()}
    return [
        f"{name} is {have.get(name, 'missing')}, pinned {pin}" for name, pin in pinned.items() if have.get(name) != pin
    ]


def known_faults(report: str) -> list[str] | None:
    """pip-audit's report as lines; None where there are none, but its service did not answer for all packages."""
    try:
        found = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    faults = [(each, fault) for each in found for fault in each.get("vulns", [])]
    if not faults and (not found or any("skip_reason" in each for each in found)):
        return None
    mended = [(each, fault["id"], ", ".join(fault["fix_versions"]) or "no version yet") for each, fault in faults]
    return [f"{each['name']} {each['version']}: {name}, mended in {versions}" for each, name, versions in mended]


def asked(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)


def audit() -> int:
    """A line, or several, for each thing that is looked at; 1 if anything is wrong."""
    pinned, whole = str(ROOT / "constraints.txt"), asked("pip", "check")
    failed = whole.returncode != 0
    report = asked("pip_audit", *OSV.split(), "--requirement", pinned).stdout
    found = {
        "whole (pip check)": (whole.stdout or whole.stderr or "it failed without a word").splitlines()
        if failed
        else [],
        "as pinned": not_as_pinned(pins(Path(pinned).read_text())),
        "listed in docs/": [f"{path.relative_to(ROOT)} is older: `python -m docs.supply --write`" for path in stale()],
        "known faults": known_faults(report),
    }
    for name, lines in found.items():
        print(NO_ANSWER if lines is None else "\n  ".join([f"{name}:{' nothing wrong' * (not lines)}", *lines]))
    return int(any(found.values()))


def stale() -> list[Path]:
    return [path for path, text in made().items() if path.read_text() != text]


def write() -> None:
    for path, text in made().items():
        path.write_text(text)
        print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    elif sys.argv[1:]:
        raise SystemExit("expected nothing, or --write")
    else:
        raise SystemExit(audit())
