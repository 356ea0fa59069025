"""`amg ...`: arguments to settings, a call, an exit code.

| code | meaning |
|---|---|
| 0 | everything is committed |
| 1 | an error of the machine or the program |
| 2 | wrong usage or configuration; nothing was touched |
| 3 | finished, but some images or shards failed for other reasons than their own content |
| 130, 143 | ended by SIGINT, SIGTERM; the same command goes on |
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from amg_pipeline import __version__
from amg_pipeline.cli.evaluate import evaluate
from amg_pipeline.cli.export import export
from amg_pipeline.cli.refilter import refilter
from amg_pipeline.cli.report import report
from amg_pipeline.cli.review import review
from amg_pipeline.cli.runs import demo, plan, run, status, verify
from amg_pipeline.cli.show import show
from amg_pipeline.cli.train import train
from amg_pipeline.cli.weights import weights
from amg_pipeline.errors import AmgPipelineError, ConfigError, JobIncompleteError, WeightsError
from amg_pipeline.telemetry import configure_logging

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="amg")
def app() -> None:
    """Automatic mask generation: every mask a Segment Anything Model finds, as Parquet."""


for command in (
    demo,
    plan,
    run,
    status,
    verify,
    report,
    show,
    export,
    evaluate,
    refilter,
    review,
    train,
    weights,
):
    app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code.

    Args:
        arguments: Words after `amg`; those of the process by default.
    """
    configure_logging()
    # TensorFlow greets on standard error with lines that mean nothing to a user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        app.main(args=arguments, prog_name="amg", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        _fail(error.format_message() + _where_help_is(error), EXIT_USAGE)
    except click.ClickException as error:
        _fail(error.format_message(), EXIT_USAGE)
    except (ConfigError, WeightsError) as error:
        _fail(str(error), EXIT_USAGE)
    except JobIncompleteError as error:
        _fail(str(error), EXIT_INCOMPLETE)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter's last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except (AmgPipelineError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; give the same command again to go on", EXIT_SIGINT)


def _exit_on_sigterm(_signum: int, _frame: FrameType | None) -> None:
    click.echo("amg: terminated; give the same command again to go on", err=True)
    raise SystemExit(EXIT_SIGTERM)


def _where_help_is(error: click.UsageError) -> str:
    return f" See {error.ctx.command_path} --help." if error.ctx is not None else ""


def _fail(message: str, code: int) -> None:
    click.echo(f"amg: {message}", err=True)
    sys.exit(code)
