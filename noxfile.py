"""The project's checks: ``nox`` alone runs all that must hold, ``nox -s bench`` the benchmarks."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

#: For pytest-xdist, if the whole suite is run. Some tests wait for servers and processes most of
#: the time, others for nobody: so there are more workers than cores, each begins in another part of
#: the suite, and who is through takes from the others.
ON_ALL_CORES = ("-n", str((os.cpu_count() or 1) + 2), "--dist", "worksteal")

nox.needs_version = ">=2025.10.16"
nox.options.download_python = "never"
# a Python that is not installed is reported as skipped, under CI=true as well
nox.options.error_on_missing_interpreters = False
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "typing", "tests", "docs", "build"]


def reveal_pyenv_interpreters() -> None:
    """
    Put on the PATH what pyenv has installed but not activated.

    Its shims stand on the PATH for every version and fail for those that are not active.
    """
    root = os.environ.get("PYENV_ROOT") or output_of("pyenv", "root")
    if not root:
        return

    for version in PYTHONS:
        if runs(version):
            continue

        name = f"python{version}"
        found = Path(root, "versions").glob(f"{version}.*/bin/{name}")
        newest = max(found, key=lambda path: version_numbers(path.parts[-3]), default=None)
        if newest:
            os.environ["PATH"] = f"{newest.parent}{os.pathsep}{os.environ['PATH']}"


def runs(version: str) -> bool:
    """Tell whether a Python is there."""
    return bool(output_of(f"python{version}", "-c", "print('runs')"))


def keep_bytecode() -> None:
    """
    Let each module be compiled once, and not by each worker and each program that a test starts.

    Who wants no such files beside the sources has them in a folder of their own.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(".nox", "bytecode").resolve())


def version_numbers(version: str) -> list[int]:
    """Return what orders versions by age: ``3.13.10`` comes after ``3.13.9``."""
    return [int(digits) for digits in re.findall(r"\d+", version)]


def output_of(*command: str) -> str:
    """Return what a command prints, or nothing where it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode else result.stdout.strip()


def fastest_backend() -> str:
    """
    Return what makes the environments: uv, if it is there and finds packages, else virtualenv.

    It may not find them, because it does not read where pip is told to look.
    """
    question = ("uv", "pip", "install", "--dry-run", "--reinstall", "--no-deps", "nox")
    command = (sys.executable, "-m", *question, "--python", sys.executable)
    found = subprocess.run(command, capture_output=True, check=False)
    return "virtualenv" if found.returncode else "uv"


reveal_pyenv_interpreters()
keep_bytecode()
nox.options.default_venv_backend = fastest_backend()


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group; pip only learnt ``--group`` in 25.1."""
    return nox.project.dependency_groups(PYPROJECT, name)


def at_once(session: nox.Session, *commands: tuple[str, ...]) -> None:
    """Run commands at the same time, because each keeps one core busy; print what they tell."""
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(session.run, *command, silent=True) for command in commands]

    for run in runs:
        print(run.result())


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, spelling, and the direction of imports."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the package, its tests and the benchmarks with two type checkers."""
    session.install("-e", ".", *group("typing"))
    at_once(session, ("mypy",), ("basedpyright",))


#: The session in which the coverage is measured, from its begin on.
covered: list[str] = []


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """
    Run the tests; on the first Python that is found, they must cover every branch.

    One is enough: no line of the package asks which Python it runs on, so the others would cover
    the same branches, and counting them costs as much again. A selection covers less. For the same
    reason the tests that start Redis and Valkey servers, which wait for them most of the time, run
    on that Python alone. Properties are tried by all their examples on one of the others, where
    nothing is counted; elsewhere, by half of them.
    """
    session.install("-e", ".", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return

    last = session.python == [version for version in PYTHONS if runs(version)][-1]
    env = {"ANYTHROTTLE_EXAMPLES": "1" if last else "0.5"}
    if covered:
        session.run("pytest", *ON_ALL_CORES, "-m", "not servers", env=env)
        return

    covered.append(session.name)
    env["COVERAGE_FILE"] = str(Path(session.create_tmp(), "coverage").resolve())
    session.run("coverage", "erase", env=env)
    session.run("coverage", "run", "-m", "pytest", *ON_ALL_CORES, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, and run what README, pages and docstrings show."""
    session.install("-e", ".", *group("docs"))
    out = Path(session.create_tmp())
    pages = ("-d", str(out / "doctrees"), "docs", str(out / "html"))
    at_once(
        session,
        ("sphinx-build", "-W", "-n", "-E", "--keep-going", "-b", "html", *pages),
        ("python", "-m", "pytest", "-p", "docs.run_examples", "README.md", "docs", "anythrottle"),
    )


@nox.session(reuse_venv=False)
def build(session: nox.Session) -> None:
    """
    Build the distributions, and test the installed wheel away from its source.

    Its modules are, byte for byte, those that the tests session tests. What can be wrong besides
    is how they are put together; so here go tests that come to them from outside: imports and
    public names, optional parts, the conformance suite, a function of the engine, the examples.
    """
    session.install("build", *PYPROJECT["build-system"]["requires"])
    with tempfile.TemporaryDirectory() as tmp:
        # the wheel is built from the sdist, which so proves to be complete
        session.run("python", "-m", "build", "--no-isolation", "--outdir", tmp)
        (wheel,) = Path(tmp).glob("*.whl")
        check_contents(session, wheel)
        session.install(str(wheel), *group("test"))

        away = Path(tmp, "away")
        away.mkdir()
        shutil.copy("pyproject.toml", away)
        for name in ("tests", "docs/examples"):
            if Path(name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(name, away / name, ignore=ignore)
        with session.chdir(away):
            session.run("python", "-c", OUT_OF_THE_WAY)
            session.run("python", "-m", "pytest", *ON_ALL_CORES, *FROM_OUTSIDE)


OPTIONAL_PARTS = [
    *("aiohttp", "asgi_frameworks", "headers", "llm", "logs", "otel", "prometheus", "rich", "sdks"),
    "transport_sockets",  # of httpx and httpx2
]

FROM_OUTSIDE = [
    *("tests/test_all.py", "tests/test_abc.py", "tests/engine/test_mapping.py"),
    *(f"tests/integrations/test_{part}.py" for part in OPTIONAL_PARTS),
    *("tests/stores/test_conformance.py", "tests/examples", "tests/testing"),
]

OUT_OF_THE_WAY = """
import anythrottle, sysconfig
assert anythrottle.__file__.startswith(sysconfig.get_path("purelib")), anythrottle.__file__
"""


def check_contents(session: nox.Session, wheel: Path) -> None:
    """Fail unless the wheel holds all of the package and the licence, as they are, and no more."""
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    wanted = {
        path.as_posix(): path
        for path in Path("anythrottle").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted["anythrottle/py.typed"] = Path("anythrottle/py.typed")
    wanted[f"{info}/licenses/LICENSE"] = Path("LICENSE")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        if missing := sorted(wanted.keys() - held):
            session.error(f"{wheel.name} lacks {', '.join(missing)}")
        if changed := [
            name for name, path in wanted.items() if archive.read(name) != path.read_bytes()
        ]:
            session.error(f"{wheel.name} holds another {', '.join(changed)}")
    strangers = {name for name in held - wanted.keys() if not name.startswith(f"{info}/")}
    if strangers:
        session.error(f"{wheel.name} holds {', '.join(sorted(strangers))}")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the library and its peers."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Make a thousand small faults, one at a time, and see if a test notices; half an hour."""
    session.install("-e", ".", *group("mutation"))
    # fewer examples of each property: what they find, they most often find at once
    env = {"ANYTHROTTLE_EXAMPLES": "0.3"}
    session.run("python", "-m", "tests.mutation", *session.posargs, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Let processes share limits for ten minutes, or so many seconds, while all goes wrong."""
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "tests.soak", *session.posargs)
