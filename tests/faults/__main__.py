"""Runs fault injection scenarios; `tests/faults/run --help` says what they are."""

import argparse
import importlib
import os
import pathlib
import sys
import time
import traceback

from processes import Failed, Stage
from report import Report

SCENARIOS = ["kill", "clickhouse", "sigterm", "disk", "streams", "million", "secrets", "fleet", "registry_down", "publisher_killed"]


def run(name, options):
    scenario = importlib.import_module(f"scenarios.{name}")
    report = Report(name)
    print(f"\n== {name}: {scenario.__doc__.splitlines()[0]}", flush=True)
    began = time.monotonic()
    with Stage(options.binary, options.keep) as stage:
        try:
            scenario.run(stage, report, options.short)
        except Failed as error:
            report.check(False, str(error))
        except Exception:
            report.check(False, traceback.format_exc())
    print(report.text())
    print(f"  {name}: {'ok' if report.ok else 'FAILED'} ({time.monotonic() - began:.1f} s)", flush=True)
    return report


def main():
    parser = argparse.ArgumentParser(description="Fault injection on real processes.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="small sizes, for continuous integration")
    parser.add_argument("--keep", action="store_true", help="keep the folders with logs and data, and say where they are")
    options = parser.parse_args()
    if unknown := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    binary = os.environ.get("PROMPTGATE_BIN", "")
    if not os.access(binary, os.X_OK):
        parser.error("PROMPTGATE_BIN does not name the promptgate binary; tests/faults/run builds one and sets it")
    options.binary = pathlib.Path(binary).resolve()
    reports = [run(name, options) for name in options.scenarios or SCENARIOS]
    print()
    for report in reports:
        skipped = f", {len(report.skipped)} cases skipped" if report.skipped else ""
        print(f"{'ok    ' if report.ok else 'FAILED'}  {report.name}{skipped}")
    return 0 if all(report.ok for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
