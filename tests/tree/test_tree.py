"""The tree keeps its shape: rooms include only what their row allows, there are no circles,
files and functions stay short, and clang-format has nothing to say."""

import os
import pathlib
import re
import subprocess

import pytest

from rooms import ROOMS, TEST_HEADERS

TOP = pathlib.Path(__file__).resolve().parents[2]
SRC = TOP / "src"

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 80
# Files that are longer than the rule allows. This list may only shrink.
LONG_FILES = {}
# "file:function" of longer functions. This list may only shrink.
LONG_FUNCTIONS = {}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def sources():
    listing = subprocess.run(["git", "ls-files", "src", "bpf", "tests"], cwd=TOP,
                             capture_output=True, text=True, check=True).stdout.split()
    return [TOP / name for name in listing
            if name.endswith((".c", ".h")) and (TOP / name).exists()]


def room_of(path):
    return path.relative_to(SRC).parts[0]


def allowed(room, include):
    target = include.split("/")[0]
    return target == room or target in ROOMS[room] or include in ROOMS[room]


def in_src():
    return [path for path in sources() if SRC in path.parents]


def test_there_is_something_to_check():
    assert len(in_src()) > 20


def test_every_room_has_a_row():
    assert {room_of(path) for path in in_src()} <= set(ROOMS)


def test_rooms_include_only_what_their_row_allows():
    broken = []
    for path in in_src():
        for include in INCLUDE.findall(path.read_text()):
            if include in TEST_HEADERS:
                continue
            if include.split("/")[0] not in ROOMS or not (SRC / include).exists():
                broken.append(f'{path.relative_to(TOP)}: "{include}" is not a header of a room')
            elif not allowed(room_of(path), include):
                broken.append(f'{path.relative_to(TOP)}: may not include "{include}"')
    assert not broken, "\n".join(broken)


def test_headers_form_no_circle():
    graph = {str(path.relative_to(SRC)): INCLUDE.findall(path.read_text())
             for path in in_src() if path.suffix == ".h"}
    done, path = set(), []

    def visit(header):
        assert header not in path, "circle: " + " -> ".join(path[path.index(header):] + [header])
        if header in done:
            return
        path.append(header)
        for include in graph.get(header, []):
            visit(include)
        path.pop()
        done.add(header)

    for header in graph:
        visit(header)


def functions(text):
    """(name, first line, length) of each function: our layout puts its braces in column 0."""
    lines = text.split("\n")
    start = None
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            head = start - 1
            while head > 0 and lines[head].startswith((" ", "\t")):
                head -= 1
            name = re.search(r"(\w+)\s*\(", lines[head])
            yield (name.group(1) if name else "?", head + 1, number - head + 1)
            start = None


def test_files_stay_short():
    broken = []
    for path in sources():
        name = str(path.relative_to(TOP))
        length = path.read_text().count("\n")
        if length > LONG_FILES.get(name, FILE_LINES_MAX):
            broken.append(f"{name}: {length} lines")
    assert not broken, "\n".join(broken)


def test_functions_stay_short():
    broken = []
    for path in sources():
        name = str(path.relative_to(TOP))
        for function, line, length in functions(path.read_text()):
            if length > LONG_FUNCTIONS.get(f"{name}:{function}", FUNCTION_LINES_MAX):
                broken.append(f"{name}:{line}: {function} has {length} lines")
    assert not broken, "\n".join(broken)


def test_no_exception_outlived_its_need():
    found = {f"{path.relative_to(TOP)}:{function}": length for path in sources()
             for function, _, length in functions(path.read_text())}
    assert not [name for name in LONG_FUNCTIONS if found.get(name, 0) <= FUNCTION_LINES_MAX]
    assert not [name for name in LONG_FILES
                if not (TOP / name).exists()
                or (TOP / name).read_text().count("\n") <= FILE_LINES_MAX]


def test_clang_format_agrees():
    names = "\0".join(str(path) for path in sources())
    result = subprocess.run(["xargs", "-0", "-P", str(os.cpu_count()), "-n", "16",
                             "clang-format", "--dry-run", "-Werror"],
                            input=names, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:4000]


@pytest.mark.parametrize("word", ["util", "misc", "helper", "manager"])
def test_no_file_is_named_after_nothing(word):
    assert not [str(path) for path in in_src() if word in path.stem]
