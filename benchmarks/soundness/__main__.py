"""`python -m benchmarks.soundness [--quick] [--out DIRECTORY]`: run the studies, write the pages.

Exit status 1 where a forgery that one rollout can show is accepted, or honest work refused, more
often than one in a thousand; or a cheat of a node passes that is not listed.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.soundness import fleet
from benchmarks.soundness.plot import plot
from benchmarks.soundness.report import missed, write
from benchmarks.soundness.study import FULL_MINERS, QUICK_MINERS, run


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soundness")
    parser.add_argument("--quick", action="store_true", help="two miners' files instead of 48")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where the report goes")
    chosen = parser.parse_args(arguments)
    study = run(QUICK_MINERS if chosen.quick else FULL_MINERS)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "soundness.md").write_text(write(study), encoding="utf-8")
    plot(study, chosen.out / "soundness.png")
    print(f"{chosen.out / 'soundness.md'}: {study.rollouts} rollouts, {study.seconds:.0f} s")
    found = [*missed(study), *fleet.write(chosen.out)]
    for line in found:
        print(f"MISSED  {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
