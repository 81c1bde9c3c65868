"""An ordinary Flower app, run unchanged by both runtimes of the measurement."""
