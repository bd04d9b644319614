"""How much of the dirt in a folder an audit finds, and how many clean images it accuses.

python -m tools.audit_dirt --source DIR --out DIR [--each N] [--seed S] makes a dirty copy of DIR (train/CLASS and
test/CLASS) in OUT/images, audits it into OUT/report, and says what was missed.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.audit.dirt import accused, missed, plant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit_dirt", description=__doc__)
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--each", type=int, default=3, help="times that each kind is planted (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images, report = (options.out / name for name in ("images", "report"))
    if images.exists():
        shutil.rmtree(images)
    shutil.copytree(options.source, images, copy_function=_copy)
    planted = plant(images.resolve(), options.each, options.seed)
    command = [sys.executable, "-m", "jaxnets.data", "--source", f"folder:{images.resolve()}", "--out", str(report)]
    status = subprocess.run(command).returncode
    found = json.loads((report / "audit.json").read_text())
    not_found, innocent = missed(planted, found), accused(planted, found)
    clean = found["images"] - sum(len(each.files) for each in planted)
    missing, kinds = Counter(each.kind for each in not_found), Counter(each.kind for each in planted)
    print(f"\nstatus {status}; found {len(planted) - len(not_found)} of {len(planted)} planted, {len(kinds)} kinds")
    for kind, count in missing.items():
        print(f"  missed {count} of {kinds[kind]}: {kind}")
    for each in not_found:
        print(f"    {each.kind}: {', '.join(str(file.relative_to(images.resolve())) for file in each.files)}")
    wrongly = {file for _, file in innocent}
    print(f"accused {len(wrongly)} of {clean} clean images ({len(wrongly) / clean:.2%})")
    for kind, count in Counter(kind for kind, _ in innocent).items():
        print(f"  {count} {kind}")
    return int(bool(not_found) or len(wrongly) > 0.01 * clean)


def _copy(source: str, target: str) -> str:
    return shutil.copyfile(source, target)  # the original may be read-only


if __name__ == "__main__":
    sys.exit(main())
