"""The program `spillway`."""
import sys
import typer
from app.cli import stack

app = typer.Typer(no_args_is_help=True)
stack.register(app)


@app.command()
def worker() -> None:
    from app.logging import configure_logging
    from app.settings import load_settings
    from app.worker import run
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    raise typer.Exit(run(settings))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
