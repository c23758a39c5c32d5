#!/usr/bin/python3
"""Builds Isle and runs every test; ends with "N passed, N failed, N skipped" over all runners.

    check.py [STEP...]      all steps, or only those named (see STEPS)

Each runner writes JUnit XML, which is where the counts come from; lint steps
count as one test each. The exit status is 0 only when nothing failed and every
runner ran something.
"""

import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

TOP = pathlib.Path(__file__).resolve().parents[1]
PYTHON = "/usr/bin/python3"
BUILD, SANITIZED = TOP / "build", TOP / "build-asan"
SANITIZER_ENV = {
    "CC": "clang",
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.stories = []

    def add(self, passed, failed, skipped):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped

    def one(self, name, good):
        self.add(int(good), int(not good), 0)
        if not good:
            self.stories.append(f"{name} failed")

    def junit(self, name, path, status):
        """Counts of a JUnit file; a runner that failed without a failing test counts as one."""
        cases = list(xml.parse(path).getroot().iter("testcase")) if path.exists() else []
        failed = [case for case in cases
                  if case.find("failure") is not None or case.find("error") is not None]
        skipped = [case for case in cases if case.find("skipped") is not None]
        self.add(len(cases) - len(failed) - len(skipped), len(failed), len(skipped))
        self.stories += [f"{name}: {case.get('classname')} {case.get('name')}" for case in failed]
        if not cases or (status != 0 and not failed):
            self.one(f"{name} (exit status {status}, {len(cases)} tests)", False)


def run(*command, env=None):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), cwd=TOP,
                          env={**os.environ, **(env or {})}).returncode


def build(directory, options, env=None):
    if not (directory / "build.ninja").exists():
        if run("meson", "setup", directory, *options, env=env) != 0:
            return False
    return run("ninja", "-C", directory, env=env) == 0


def meson_tests(tally, name, directory, env=None):
    report = directory / "meson-logs" / "testlog.junit.xml"
    report.unlink(missing_ok=True)
    status = run("meson", "test", "-C", directory, "--no-rebuild", "--print-errorlogs",
                 "--num-processes", "2", env=env)
    tally.junit(name, report, status)


def pytest(tally, name, *paths):
    report = BUILD / f"pytest-{name}.xml"
    report.unlink(missing_ok=True)
    status = run(PYTHON, "-m", "pytest", "-q", "-ra", f"--junitxml={report}", "-p",
                 "no:cacheprovider", "--durations=5", *paths)
    tally.junit(name, report, status)


def step_build(tally):
    tally.one("build", build(BUILD, ["--buildtype=debugoptimized"]))


def step_tree(tally):
    pytest(tally, "tree", "tests/tree")


def step_unit(tally):
    meson_tests(tally, "unit", BUILD)


def step_sanitized(tally):
    options = ["-Db_sanitize=address,undefined", "-Db_lundef=false", "--buildtype=debugoptimized"]
    if build(SANITIZED, options, SANITIZER_ENV):
        meson_tests(tally, "sanitized", SANITIZED, SANITIZER_ENV)
    else:
        tally.one("sanitizer build", False)


def step_lint(tally):
    tally.one("clang-tidy", run("scripts/lint", "clang-tidy") == 0)
    tally.one("cppcheck", run("scripts/lint", "cppcheck") == 0)


def step_system(tally):
    suites = sorted(path for path in (TOP / "tests").iterdir()
                    if path.is_dir() and path.name not in ("lib", "tree")
                    and list(path.glob("test_*.py")))
    for suite in suites:
        pytest(tally, suite.name, suite)


STEPS = {
    "build": step_build,
    "tree": step_tree,
    "unit": step_unit,
    "sanitized": step_sanitized,
    "lint": step_lint,
    "system": step_system,
}


def main(names):
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        sys.exit(f"check: no step '{unknown[0]}'; there are: {' '.join(STEPS)}")
    tally = Tally()
    for name in names or STEPS:
        start = time.monotonic()
        print(f"== {name}", flush=True)
        STEPS[name](tally)
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    for story in tally.stories:
        print("FAILED", story)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
