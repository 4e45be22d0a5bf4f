"""``python -m experiments`` lists the experiments; ``python -m experiments NAME --flags`` runs one.

``python -m experiments report`` runs all that have no result yet and makes one gallery of them.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

_FRAMEWORK = {"__init__", "__main__", "classifiers", "figures", "gallery", "report", "rows", "writing"}


def names() -> list[str]:
    """The names of all experiments: one a file."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in _FRAMEWORK)


def claim_of(name: str) -> str:
    """The docstring of an experiment, read without importing it."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "claim", box=None, padding=(0, 2, 0, 0))
    for name in names():
        table.add_row(name, claim_of(name).splitlines()[0])
    console = Console()
    console.print(table)
    console.print(
        "\nRun one:  python -m experiments NAME     Its settings:  python -m experiments NAME --help"
        "\nRun all:  python -m experiments report"
    )


def _parse(name: str, config_type: Any, arguments: list[str]) -> tuple[Any, Path]:
    import tyro

    settings = tyro.conf.OmitArgPrefixes[config_type]
    folder = Annotated[Path, tyro.conf.arg(help="The folder to write to; the experiment gets its own in it.")]
    fields = [("config", settings), ("results", folder, dataclasses.field(default=Path("results")))]
    Command = dataclasses.make_dataclass("Command", fields)
    Command.__doc__ = "Settings."
    command = tyro.cli(
        Command, args=arguments, prog=f"python -m experiments {name}", description=claim_of(name)
    )
    return command.config, command.results


def _report(arguments: list[str]) -> int:
    import tyro

    from experiments.gallery import Settings, run_all

    settings = tyro.cli(Settings, args=arguments, prog="python -m experiments report")
    return run_all({name: claim_of(name) for name in names()}, settings)


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "list"):
        _list()
        return 0
    name = arguments[0]
    if name == "report":
        return _report(arguments[1:])
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"there is no experiment {name!r}{hint} The experiments: {', '.join(names())}", file=sys.stderr)
        return 2
    experiment = importlib.import_module(f"experiments.{name}")
    config, results = _parse(name, experiment.Config, arguments[1:])
    from experiments.gallery import source_of
    from experiments.report import open_folder, save

    try:
        folder = open_folder(results / name)
        started = time.perf_counter()
        report = experiment.run(config)
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            print(f"  {note}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - started
    source = source_of(Path(__file__).parent / f"{name}.py")
    page = save(
        report, folder, name=name, claim=claim_of(name), config=config, seconds=seconds, source=source
    )
    for key, value in report.numbers.items():
        print(f"{key:<32} {value:.5g}" if isinstance(value, float) else f"{key:<32} {value}")
    print(f"\n{report.verdict}: {report.because}\n{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
