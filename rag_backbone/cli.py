"""The `dynprag` command: a thin Typer app that finds its subcommands through entry points.

Each package registers its subcommands in the group `dynprag.commands`; the entry point is a function that takes the
app.
"""

# No postponed annotations: Typer evaluates those below, and its name is defined only inside the function.
import logging
import sys
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated, Any

from rag_backbone.console import encode_anything, ending, start
from rag_backbone.errors import DynPragError

if TYPE_CHECKING:
    import typer

logger = logging.getLogger(__name__)
GROUP = "dynprag.commands"


def main() -> None:
    """Run the command line. An error that the user can fix is one line on stderr with exit code 2."""
    encode_anything()
    with ending(DynPragError):
        try:
            app = build_app()
        except ModuleNotFoundError as error:
            if error.name not in ("typer", "rich", "click"):
                raise
            sys.exit(f"the command line needs {error.name}: pip install 'dynprag[cli]'")
        app()


def build_app() -> "typer.Typer":
    """Return the app with every subcommand that is installed."""
    import typer
    from typer.core import TyperGroup

    class Commands(TyperGroup):
        """Group of subcommands that reports an interrupt in one line; what Typer prints varies between versions."""

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                typer.echo("interrupted", err=True)
                raise typer.Exit(130) from None

    app = typer.Typer(
        name="dynprag",
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Dynamic and parametric retrieval-augmented generation.",
        epilog="Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 a check found something wrong, "
        "2 an error that you can fix, 130 interrupted.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"dynprag {version('dynprag')}")
            raise typer.Exit

    @app.callback()
    def options(
        *,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is being done.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and problems.")] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
        _version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        start(verbose=verbose, quiet=quiet, debug=debug)

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
