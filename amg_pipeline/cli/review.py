"""The command `amg review`."""

from __future__ import annotations

import getpass
import webbrowser

import click

from amg_pipeline.errors import ConfigError

#: What the extra brings; a missing module of ours is another matter.
_EXTRA = frozenset({"fastapi", "starlette", "uvicorn"})


@click.command(short_help="A page on which people accept, reject and merge masks.")
@click.argument("output")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to bind to; see --token."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any that is free.")
@click.option("--reviewer", metavar="NAME", help="Whose decisions they are; by default, yours.")
@click.option(
    "--images", metavar="GLOB", multiple=True, help="Only images whose id matches; repeatable."
)
@click.option(
    "--token",
    metavar="TEXT",
    envvar="AMG_REVIEW_TOKEN",
    help="What a browser must know; a random one by default where --host is not this machine only.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="A further name of the server, e.g. behind a proxy; repeatable.",
)
@click.option("--open", "opens_browser", is_flag=True, help="Open the page in a browser.")
def review(
    output: str,
    host: str,
    port: int,
    reviewer: str | None,
    images: tuple[str, ...],
    token: str | None,
    allowed_hosts: tuple[str, ...],
    opens_browser: bool,
) -> None:
    """Serve a page on which people review the masks of the run in OUTPUT, until Ctrl-C.

    Decisions go to OUTPUT/_amg/reviews, a log for each reviewer, and never into the run; `amg
    export --reviewed accepted` keeps to them.
    """
    try:
        from amg_pipeline.review.server import ReviewSettings, serve_review
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise ConfigError(
            f"`amg review` needs packages that are not installed. Received: no {error.name}. "
            'Install them: pip install "amg_pipeline[review]"'
        ) from error

    def on_ready(address: str) -> None:
        click.echo(f"review: {address}")
        click.echo("Ctrl-C ends it; every decision is saved as it is made")
        if opens_browser:
            webbrowser.open(address)

    settings = ReviewSettings(
        reviewer=reviewer or _user_name(),
        host=host,
        port=port,
        token=token,
        images=images,
        allowed_hosts=allowed_hosts,
    )
    try:
        serve_review(output, settings, on_ready=on_ready)
    except KeyboardInterrupt:
        click.echo("ended")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's user may have a number only.
        return "reviewer"
