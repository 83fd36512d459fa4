"""Write the tables of docs/spec/errors.md from claudemesh.errors: `python tools/error_reference.py`."""

import inspect
from pathlib import Path

from claudemesh import errors

PAGE = Path(__file__).parent.parent / "docs" / "spec" / "errors.md"
MARK = "<!-- The tables below are written by tools/error_reference.py. -->"


def tables() -> str:
    """One section for each class that has codes, in the order of the source."""
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if "CODES" in vars(one) and one.CODES]
    classes.sort(key=lambda one: inspect.getsourcelines(one)[1])
    return "\n".join(_section(one) for one in classes)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8").split(MARK)[0].rstrip()
    PAGE.write_text(f"{text}\n\n{MARK}\n\n{tables()}", encoding="utf-8")


def _section(one: type[errors.ClaudemeshError]) -> str:
    rows = [
        f"## `{one.__name__}`",
        "",
        (one.__doc__ or "").strip(),
        "",
        "| code | retryable | what to do |",
        "|---|---|---|",
    ]
    rows += [f"| `{code}` | {'yes' if code in one.RETRYABLE else 'no'} | {hint} |" for code, hint in one.CODES.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
