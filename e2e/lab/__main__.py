"""The command line: `python -m e2e.lab up | status | env | logs NAME | down`."""

import shlex
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from e2e.lab.errors import LabError
from e2e.lab.lab import DEFAULT_NAME, Lab

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Option("--name", help="Which lab; labs with different names run side by side.")]


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    slurm: Annotated[str, typer.Option(help="Release of Slurm: 24.11 or 26.05.")] = "24.11",
    workers: Annotated[int, typer.Option(min=1, max=8, help="Real worker nodes.")] = 3,
    kwok_nodes: Annotated[int, typer.Option(min=0, help="Simulated nodes beside them.")] = 0,
) -> None:
    """Start a lab, or see that it is whole."""
    lab = Lab.up(name, slurm, workers, kwok_nodes)
    print(f'{name} is up. Talk to it with:  eval "$(python -m e2e.lab env --name {lab.name})"')


@app.command()
def status(name: Name = DEFAULT_NAME) -> None:
    """Show each part and its state."""
    lab = Lab.attach(name)
    table = Table("part", "state")
    for part, state in lab.status().items():
        table.add_row(part, f"[{'green' if state == 'running' else 'red'}]{state}[/]")
    console = Console()
    console.print(table)
    console.print(f"Slurm {lab.slurm_release} at {lab.rest_url}, shared directory {lab.shared_dir}", soft_wrap=True)
    console.print(f"Prometheus at {lab.prometheus_url}", soft_wrap=True)


@app.command()
def env(name: Name = DEFAULT_NAME) -> None:
    """Print what a shell needs to talk to a lab."""
    settings = Lab.attach(name).environment()
    tools = settings.pop("PATH")
    for variable, value in settings.items():
        print(f"export {variable}={shlex.quote(value)}")
    print(f'export PATH={shlex.quote(tools)}:"$PATH"')


@app.command()
def logs(part: Annotated[str, typer.Argument(help="A part as `status` names it.")], name: Name = DEFAULT_NAME) -> None:
    """Print what a part wrote."""
    print(Lab.attach(name).logs(part), end="")


@app.command()
def down(name: Name = DEFAULT_NAME) -> None:
    """Take a lab away, also one that is half made or half gone."""
    Lab.remove(name)


def main() -> None:
    """What a person did wrong, or the machine lacks, is one sentence and not a traceback."""
    try:
        app()
    except LabError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
