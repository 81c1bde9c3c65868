from flwr.app import Context
from flwr.cli.build import build_fab_from_disk
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    build_fab_from_disk(context.run_config["app"])
