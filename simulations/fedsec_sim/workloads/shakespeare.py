"""Shakespeare's plays, character by character; each speaking role is a node.

Source of the task: McMahan et al., AISTATS 2017, section 3: predict the next character of a role's
lines. Here from 16 characters, so that a node trains within milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec_sim.workloads.files import data_file
from fedsec_sim.workloads.pool import Pool

TEXT = "shakespeare/input.txt"
WINDOW, STRIDE = 16, 5
TEST_SHARE = 10  # every tenth speech is for the central test
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Shakespeare:
    """The task: a GRU over 16 characters tells the next one. No options."""

    name: str = "shakespeare"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns the model."""
        Settings(options, "task.options.").end()
        with seeded(seed):
            return NextCharacter(len(_read().alphabet))

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Nodes are made by a split."""
        del settings
        raise ConfigError("shakespeare is divided by a split, e.g. --split natural")

    def pool(self) -> Pool:
        """Returns nine of ten speeches, grouped by who speaks."""
        plays = _read()
        return Pool(plays.train, plays.speakers)

    def central_test(self) -> Examples | None:
        """Returns every tenth speech."""
        return _read().test

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns the share of characters that are told rightly."""
        return {"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}


class NextCharacter(nn.Module):
    """Embedding, GRU, linear."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 8)
        self.recurrent = nn.GRU(8, 64, batch_first=True)
        self.answer = nn.Linear(64, characters)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns scores (n, characters) for windows (n, 16)."""
        states, _ = self.recurrent(self.embedding(inputs))
        scores: Tensor = self.answer(states[:, -1])
        return scores


@dataclass(frozen=True, eq=False)
class _Plays:
    alphabet: str
    train: Examples
    speakers: np.typing.NDArray[np.int64]
    test: Examples


@cache
def _read() -> _Plays:
    """Returns the plays as windows.

    Raises:
        ConfigError: The file is not there or no play.
    """
    path = data_file(TEXT)
    text = path.read_bytes()[:MAX_BYTES].decode("utf-8", "replace")
    alphabet = "".join(sorted(set(text)))
    number = {character: place for place, character in enumerate(alphabet)}
    names: dict[str, int] = {}
    windows: list[list[int]] = []
    speakers: list[int] = []
    held: list[list[int]] = []
    for count, speech in enumerate(text.split("\n\n")):
        name, _, words = speech.partition(":\n")
        if not words or len(name) > 40:  # noqa: PLR2004 - no name of a role
            continue
        speaker = names.setdefault(name, len(names))
        codes = [number[character] for character in words]
        cut = [codes[s : s + WINDOW + 1] for s in range(0, len(codes) - WINDOW, STRIDE)]
        if count % TEST_SHARE == 0:
            held += cut
        else:
            windows += cut
            speakers += [speaker] * len(cut)
    if not windows or not held:
        raise ConfigError(f"{path} holds no speeches")
    return _Plays(alphabet, _examples(windows), np.array(speakers), _examples(held))


def _examples(windows: list[list[int]]) -> Examples:
    codes = torch.tensor(windows)
    return Examples(codes[:, :WINDOW].contiguous(), codes[:, WINDOW].contiguous())


task = Shakespeare()
