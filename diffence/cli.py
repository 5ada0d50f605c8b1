"""The console command `diffence`: one subcommand a job, each defined beside the code that does it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]

# A module is imported only when its command is asked for: figures and data sets take a while to load.
COMMANDS = {
    "demo": ("diffence.experiments.demo", "train, fence and attack small classifiers; write a report"),
    "audit": (
        "diffence.auditing.command",
        "attack a model in a file; a report, and an exit status for CI",
    ),
    "train-diffusion": ("diffence.unets.training", "train a DDPM on your images, for a fence"),
    "train-classifier": ("diffence.classifiers.training", "train a classifier on your images"),
    "info": ("diffence.info", "versions, processor, instruction sets, threads"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `diffence ARGV`; the exit status: 0, 1 (a claim fails), 2 (a wrong argument or file) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="diffence", description="Membership privacy for image classifiers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in arguments[:1]:
            loaded = importlib.import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except KeyboardInterrupt as interrupt:
        print(f"diffence {parsed.command}: interrupted; {str(interrupt) or 'nothing is half written'}", file=sys.stderr)
        return 130
    except AssertionError as error:
        print(f"diffence {parsed.command}: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, ArithmeticError, RuntimeError, OSError, MemoryError) as error:
        print(f"diffence {parsed.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
