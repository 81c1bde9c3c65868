"""What this package adds to the `fedsec` command."""

from fedsec.cli import CommandTree


def register(cli: CommandTree) -> None:
    """Adds `fedsec demo`, `fedsec simulate`, `fedsec sim` and `fedsec grid`."""
    cli.command(
        "demo",
        "The three defences in one round, on this machine.",
        "fedsec_sim.demo:demo_command",
        "fedsec demo",
        "fedsec demo --sim --directory first-look",
    )
    cli.command(
        "simulate",
        "Run a plan with simulated nodes.",
        "fedsec_sim.simulate_command:simulate_command",
        "fedsec plan example > plan.toml && fedsec simulate plan.toml",
        "fedsec simulate plan.toml --nodes 100 --data alpha=0.1 --engine loop --workers 2",
        "fedsec sim plot runs/*.jsonl -o curves.png",
    )
    cli.extend("sim", "Look at simulations.", "fedsec_sim.sim_commands:fill")
    cli.command(
        "grid",
        "Run an experiment: rules, attacks, data and seeds.",
        "fedsec_sim.grid_command:grid_command",
        "fedsec grid simulations/experiments/bucketing.toml",
    )
