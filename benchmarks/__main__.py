"""`python -m benchmarks [NAME …]`: run the benchmarks and print what they compared.

Each benchmark measures Windrow's way and the plain way in one run on one machine, so the ratio
holds when the machine's speed does not. Exit status 1 when a target is missed.
"""

import importlib
import json
import pkgutil
import sys
from dataclasses import asdict

import benchmarks
from benchmarks.ratio import Ratio

HEADINGS = ("benchmark", "ours", "plain", "unit", "ratio", "target", "")


def names() -> list[str]:
    """Every module here that has something to run; folders are studies, run by themselves."""
    found = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg]
    return [name for name in found if name not in {"__main__", "memory", "ratio"}]


def main(chosen: list[str]) -> int:
    """Run the chosen benchmarks, or all; print a table, then the same as JSON lines."""
    unknown = set(chosen) - set(names())
    if unknown:
        print(
            f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}"
        )
        return 2
    results: list[Ratio] = []
    for name in chosen or names():
        print(f"running {name} …", file=sys.stderr, flush=True)
        results += importlib.import_module(f"benchmarks.{name}").run()
    rows = [HEADINGS] + [
        (r.name, f"{r.ours:.4g}", f"{r.plain:.4g}", r.unit, f"{r.ratio:.3g}x", r.target,
         "met" if r.met else "MISSED")
        for r in results
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    for result in results:
        print(json.dumps(asdict(result)))
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
