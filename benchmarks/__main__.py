"""Run all benchmarks, or those that are named: ``python -m benchmarks uncontended engine``."""

import argparse
import subprocess
import sys

NAMES = ("uncontended", "waiters", "accuracy", "marked", "engine", "memory")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help=", ".join(NAMES))
    names = parser.parse_args().names
    if strangers := set(names) - set(NAMES):
        parser.error(f"{', '.join(sorted(strangers))}: choose from {', '.join(NAMES)}")

    # Each in a process of its own: none finds the heap that another has left.
    commands = [[sys.executable, "-m", f"benchmarks.{name}"] for name in names]
    return max(subprocess.run(command, check=False).returncode for command in commands)  # noqa: S603 - its own modules


if __name__ == "__main__":
    sys.exit(main())
