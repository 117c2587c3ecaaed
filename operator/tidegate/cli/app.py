"""The words of the command line. What a command needs is imported when it runs, so that help comes at once."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tidegate.cluster.client import KubeApi

PIPE_COLUMNS = 200
"""Width of tables that go into a file or a pipe."""

app = typer.Typer(
    name="tidegate",
    help="Tidegate lends idle GPU nodes of Kubernetes to Slurm and takes them back by priority.",
    epilog="Exit codes: 0 done, 1 failed (one sentence on stderr says why), 2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


node = typer.Typer(no_args_is_help=True)
app.add_typer(node, name="node", help="What people do about a node.")


class TableOrJson(StrEnum):
    """How `status` shows what it found."""

    table = "table"
    json = "json"


class TextOrJson(StrEnum):
    """How `explain` shows what it found."""

    text = "text"
    json = "json"


class Explained(StrEnum):
    """What can be explained."""

    node = "node"
    loan = "loan"
    claim = "claim"
    pool = "pool"


class Level(StrEnum):
    """The least important log records that are written."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="PATH",
        help="How to reach Kubernetes. Without it: the service account of the pod, else $KUBECONFIG or ~/.kube/config.",
        show_default=False,
    ),
]


async def _connect(kubeconfig: Path | None) -> KubeApi:
    from tidegate import __version__
    from tidegate.cluster.client import KubeClient

    return await KubeClient.connect(kubeconfig, f"tidegate-cli/{__version__}")


def _terminal() -> Console:
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if fits else PIPE_COLUMNS, markup=False, highlight=False, emoji=False)


@dataclass(frozen=True)
class Outside:
    """What commands touch: the API server, the clock and the terminal. Tests put their own into `Context.obj`."""

    connect: Callable[[Path | None], Awaitable[KubeApi]] = _connect
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    console: Callable[[], Console] = _terminal


@app.command()
def operator(
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[
        str,
        typer.Option(
            envvar="POD_NAMESPACE", metavar="NAME", help="Where slurmd pods, the credentials and the Lease are."
        ),
    ] = "tidegate",
    probe_port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Serves /healthz and /readyz.")
    ] = 8080,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Serves /metrics.")] = 9090,
    image: Annotated[
        str, typer.Option(envvar="TIDEGATE_IMAGE", metavar="IMAGE", help="Of Tidegate; InferenceServices need it.")
    ] = "",
    log_level: Annotated[Level, typer.Option(help="The least important records of Tidegate that are logged.")] = (
        Level.info
    ),
) -> None:
    """Run the operator until it is told to end (SIGTERM or Ctrl-C).

    It logs one line for each record to stderr. The chart runs this command.
    """

    async def run() -> None:
        from tidegate.cli.operator import log_lines, until_told
        from tidegate.controllers import shell

        log_lines(log_level.value)
        await until_told(shell.run(kubeconfig, namespace, probe_port, metrics_port, image))

    _run(run())


@app.command()
def status(
    context: typer.Context,
    kubeconfig: Kubeconfig = None,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="How to show it.")] = TableOrJson.table,
) -> None:
    """Show who owns each node of each pool, why, what happens next, and which claims wait.

    Asks only the API server, never Slurm.
    """

    async def run(outside: Outside) -> None:
        from tidegate.cli.look import look
        from tidegate.cli.status import as_json, print_tables

        index = await look(await outside.connect(kubeconfig), outside.now())
        if output is TableOrJson.json:
            typer.echo(as_json(index))
        else:
            print_tables(index, outside.console())

    _run(run(_outside(context)))


@app.command()
def explain(
    context: typer.Context,
    kind: Annotated[Explained, typer.Argument(help="What it is.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Its name; of a claim also NAMESPACE/NAME.", show_default=False)],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Of a claim. Without it all are searched.")
    ] = "",
    kubeconfig: Kubeconfig = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="How to show it.")] = TextOrJson.text,
) -> None:
    """Say who owns a node, loan, claim or pool, why, since when, what happens next and what blocks it.

    Asks only the API server, never Slurm.
    """

    async def run(outside: Outside) -> None:
        from tidegate.cli.explain import as_json, print_text
        from tidegate.cli.look import look
        from tidegate.sharing.explain import explain

        index = await look(await outside.connect(kubeconfig), outside.now())
        found = explain(kind.value, name, namespace, index)
        if output is TextOrJson.json:
            typer.echo(as_json(found))
        else:
            print_text(found, index.now, outside.console())

    _run(run(_outside(context)))


@app.command("return-all")
def return_all(
    context: typer.Context,
    timeout_seconds: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="Give up waiting after this long; the pools stay stopped.")
    ] = 600,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take every lent node back and lend no more: stopPolicy HoldAndDrain on all pools, then wait.

    The operator has to run. `helm uninstall` runs this command first. Set stopPolicy back to None to lend again.
    """

    async def run(outside: Outside) -> None:
        from tidegate.cli.return_all import take_all_back

        await take_all_back(await outside.connect(kubeconfig), timeout_seconds, typer.echo)

    _run(run(_outside(context)))


@app.command()
def gate(
    server_port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Where the model server listens in this pod.")
    ],
    drain_token: Annotated[
        str,
        typer.Option(envvar="TIDEGATE_DRAIN_TOKEN", metavar="TEXT", help="Who asks for /drain has to know it."),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Where requests come in.")] = 8080,
    control_port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Serves /readyz, /drain and /metrics.")
    ] = 8081,
    path: Annotated[str, typer.Option(metavar="PATH", help="Where one token is asked for.")] = "/v1/completions",
    model: Annotated[str, typer.Option(metavar="NAME", help="Of which model. Without it: the first one listed.")] = "",
    interval_seconds: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="A proof that tokens come is good for this long.")
    ] = 10,
    timeout_seconds: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long a token may take.")] = 30,
    drain_seconds: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="How long /drain waits for requests in flight.")
    ] = 120,
) -> None:
    """Stand before a model server: pass requests on, prove that tokens come, end without cutting one off.

    InferenceServices run it as a sidecar.
    """

    async def run() -> None:
        from tidegate.cli.operator import log_lines, until_told
        from tidegate.gate import server
        from tidegate.gate.readiness import Question

        log_lines(Level.info.value)
        question = Question(path, model, interval_seconds, timeout_seconds)
        url = f"http://127.0.0.1:{server_port}"
        await until_told(server.run(server.Settings(url, drain_token, drain_seconds, port, control_port, question)))

    _run(run())


@node.command()
def release(
    context: typer.Context,
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="Names of nodes.", show_default=False)],
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let quarantined nodes be lent again at once: their loans so far count no more for the pool's flapBudget.

    It writes the annotation tidegate.dev/released. A node that is not quarantined stays as it is.
    """

    async def run(outside: Outside) -> None:
        from tidegate.cli.node_release import release

        await release(await outside.connect(kubeconfig), nodes, outside.now(), typer.echo)

    _run(run(_outside(context)))


def _outside(context: typer.Context) -> Outside:
    return context.obj if isinstance(context.obj, Outside) else Outside()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command. A foreseen failure ends it with one sentence and exit code 1."""
    # It warns of a missing kubeconfig before it raises an error that says so.
    logging.getLogger("kubernetes.aio.config").setLevel(logging.ERROR)
    try:
        asyncio.run(work)
    except Exception as error:
        from tidegate.cli.failures import sentence

        words = sentence(error)
        if words is None:
            raise
        typer.echo(words, err=True)
        raise typer.Exit(1) from None
