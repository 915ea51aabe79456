"""``python -m anythrottle`` says what this is, and where to read on."""

from importlib.metadata import metadata


def main() -> None:
    """Print what the library is, and where to read on."""
    about = metadata("anythrottle")
    print(  # noqa: T201 - that is what it is for
        f"{about['Name']} {about['Version']}: {about['Summary']}.\n\n"
        f"Read on in Python:     help('anythrottle.RateLimiter'), help('anythrottle.amap')\n"
        f"Read on in the source: README.md, then docs/tutorial"
    )


if __name__ == "__main__":
    main()
