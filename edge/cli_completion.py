"""`edge completion`: the script that makes a shell complete `edge`."""

from __future__ import annotations

import click

from edge.console import out

SHELLS = ("bash", "zsh", "fish")

EPILOG = """
\b
Examples:
  edge completion bash >> ~/.bashrc
  edge completion zsh >> ~/.zshrc
  edge completion fish > ~/.config/fish/completions/edge.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and files of edge in SHELL; put it into the shell's start-up file."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click has no completion for {shell}")
    out(found(ctx.find_root().command, {}, "edge", "_EDGE_COMPLETE").source())
