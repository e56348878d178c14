"""The command for the workbench: `apportion serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from apportion.cli._messages import echo, one_line_errors
from apportion.cli._options import Device


def add_to(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    model: Annotated[
        list[str] | None, typer.Option(help="A model of your own beside those that ship; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8765,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    device: Device = None,
) -> None:
    """Open the workbench: a page where models are explained.

    It is on this machine only. Type a text, drop a picture, edit a row.

    \b
    apportion serve
    apportion serve --model mine.py:classifier --port 0 --no-browser
    """
    with one_line_errors():
        import webbrowser

        from apportion.serve.server import run

        def tell(address: str) -> None:
            echo(f"workbench: {address}\n(stop it with Ctrl-C)")
            if browser:
                webbrowser.open(address)

        run(model or (), port, tell, device)
