"""Run all benchmarks, or those that are named: ``python -m benchmarks uncontended engine``."""

import argparse
import subprocess
import sys

NAMES = (
    "uncontended",
    "transport",
    "asgi",
    "waiters",
    "accuracy",
    "marked",
    "engine",
    "memory",
    "observers",
    "imports",
    "ways",
    "clients",
    "scripts",
    "scale",
    "shared",
    "burst",
    "stores",
    "compared",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help=", ".join(NAMES))
    parser.add_argument("--write", action="store_true", help="renew the page that compares")
    options = parser.parse_args()
    if strangers := set(options.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(strangers))}: choose from {', '.join(NAMES)}")

    if options.write and "compared" not in options.names:
        parser.error("--write is for compared")

    # Each in a process of its own: none finds the heap that another has left.
    commands = [
        [sys.executable, "-m", f"benchmarks.{name}"]
        + ["--write"] * (options.write and name == "compared")
        for name in options.names
    ]
    return max(subprocess.run(command, check=False).returncode for command in commands)  # noqa: S603 - its own modules


if __name__ == "__main__":
    sys.exit(main())
