"""The `dynprag` command: a thin Typer app that finds its subcommands through entry points.

Each package registers its own under the group `dynprag.commands`; the value is a function that takes the app.
"""

# No postponed annotations: Typer evaluates those below, and its name exists only inside the function.
import logging
import sys
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated

from rag_backbone.errors import DynPragError

if TYPE_CHECKING:
    import typer

logger = logging.getLogger(__name__)
GROUP = "dynprag.commands"


def main() -> None:
    """Run the command line. Errors that the user can mend are one line on stderr and exit code 2."""
    try:
        app = build_app()
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit(f"the command line needs {error.name}: pip install 'dynprag[cli]'")
    try:
        app()
    except DynPragError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def build_app() -> "typer.Typer":
    """The app with every subcommand that is installed."""
    import typer

    app = typer.Typer(
        name="dynprag",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Dynamic and parametric retrieval-augmented generation.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"dynprag {version('dynprag')}")
            raise typer.Exit

    @app.callback()
    def options(
        *,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is being done.")] = False,
        _version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        # The handler's level, not the root logger's: some libraries set the level of their own loggers to debug.
        handler = logging.StreamHandler()
        handler.setLevel(logging.INFO if verbose else logging.WARNING)
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", handlers=[handler])

    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            register = entry.load()
        except ImportError as error:  # its extra is not installed
            logger.debug("subcommands of %s are not available: %s", entry.name, error)
            continue
        register(app)
    return app


if __name__ == "__main__":
    main()
