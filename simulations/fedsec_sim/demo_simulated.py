"""`fedsec demo --sim`: the demo's plan in this process, and what to try next."""

from fedsec.console import emit_json, say


def show_simulated(plan: str, *, json: bool) -> None:
    """Runs a plan with simulated nodes and prints what happens.

    Args:
        plan: As TOML.
        json: Print the last round as JSON instead.
    """
    from fedsec_sim.simulate import simulate  # noqa: PLC0415 - torch; the other demo needs none
    from fedsec_sim.watching import screen  # noqa: PLC0415 - as above

    shown = screen(silent=json)
    try:
        history = simulate(plan, watch=shown)
    finally:
        shown.end()
    if json:
        emit_json({"about": history.about, "last": history.rounds[-1] if history.rounds else {}})
        return
    say("")
    say(f"accuracy  {history.accuracy:.4f} on digits that no node has")
    say("")
    say("Try what a plan does not say:")
    say("  fedsec plan example > plan.toml")
    say("  fedsec simulate plan.toml --attack sign-flip --byzantine 3")
    say("  fedsec simulate plan.toml --split gamma:gamma=0.1 --systems dropout=0.2")
