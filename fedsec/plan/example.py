"""A plan to start from, with every key that most people need and why one would change it."""

EXAMPLE = """\
# A plan: what is learned, by whom and how. Check it with `fedsec plan check FILE`,
# start it with `fedsec run submit FILE`.
schema = 1
name = "handwritten digits"

[task]
name = "digits"              # built in; your own: "module:attribute"
data = "digits"              # the data set of that name in each node's settings
options = { model = "cnn" }  # "cnn", "mlp" or "logistic"

[training]
rounds = 30
algorithm = "fedavg"         # "fedavg", "fedprox" (proximal_mu), "fedavgm" (server_momentum)
                             # or "fedadam" (beta_1, beta_2, tau)
local_epochs = 2             # or local_steps = 10
batch_size = 32
learning_rate = 0.05
momentum = 0.9               # with optimizer = "sgd", the default; the other is "adam"
weighting = "uniform"        # or "examples", together with max_examples = 1000
seed = 1                     # first model, cohorts and batches follow from it

[nodes]
min_available = 10           # the run starts when so many are ready
quorum = 8                   # a round counts when so many of those drawn have answered
fraction = 1.0               # share of the ready nodes that is drawn for a round
wait_s = 300                 # seconds to wait for min_available

[round]
deadline_s = 60              # seconds for a node to answer
reconnect_s = 3              # seconds for a lost node to come back before it counts as failed
attempts = 3                 # tries in all for a round that misses its quorum
evaluate_every = 1           # rounds; 0 for never

[model]
save_every = 10              # rounds, at most training.rounds; 0 keeps the final model only

# Some of the nodes may be hostile; `fedsec robust list` shows all rules.
# [robust]
# rule = "trimmed-mean"
# byzantine = 2              # of the nodes drawn for a round; or a share, 0.2
# before = ["nnm"]
"""


def toml_example() -> str:
    """Returns a commented plan, as TOML, that passes its own check."""
    return EXAMPLE
