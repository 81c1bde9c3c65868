"""Secure sums in simulation: what the protocol itself gives, in groups too, and what liars can do."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict

from fedsec.encoding import FixedPoint, Rotated
from fedsec.flower.clock import CLOCK
from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.messages import Heading, Metrics, instruction
from fedsec.flower.sums import SumForm
from fedsec.privacy.skellam import Skellam
from fedsec.secagg.coordinator import Opened
from fedsec.secagg.groups import draw_groups
from fedsec_sim.chance import CODE, generator
from fedsec_sim.secret_sums import SecretSums, overlong, source_of
from fedsec_sim.stacked_words import words_of
from tests.secagg.rig import Rig, make_setting

NODES = tuple(range(100, 109))
SIZE, CLIP, SEED = 33, 2.0, 5
KEY = generator(SEED, CODE, 2, 1).bytes(32)
POST = Post(None, 1.0, CLOCK)  # type: ignore[arg-type]  # nobody is asked


def attempt() -> Attempt:
    arrays = {"weights": np.zeros(SIZE, np.float32)}
    content = instruction(arrays, round_number=2, attempt=1, plan="0" * 64)
    return Attempt(2, 1, NODES, content)


def rows() -> np.ndarray:
    drawn = np.random.default_rng(3).standard_normal((len(NODES), SIZE)).astype(np.float32)
    return drawn * np.float32(CLIP / 2) / np.linalg.norm(drawn, axis=1, keepdims=True)


def inner(matrix: np.ndarray, nodes: Sequence[int] = NODES) -> object:
    def collect(post: Post, which: Attempt) -> Collected:
        del post, which
        many = len(nodes)
        metrics = tuple(Metrics(1 + place, {"train-loss": 1.0}) for place in range(many))
        groups = tuple((node,) for node in nodes)
        return Collected(matrix, groups, np.ones(many), metrics, {}, {})

    return collect


def plain(nodes: int, _heading: Heading) -> SumForm:
    return SumForm(FixedPoint(SIZE, CLIP, nodes), CLIP, nodes)


def noised(nodes: int, _heading: Heading) -> SumForm:
    code = Rotated(SIZE, CLIP, 500.0, 20, bytes(32), Skellam(40_000.0 / nodes))
    return SumForm(code, CLIP, nodes)


def in_groups(nodes: Sequence[int]) -> Sequence[Sequence[int]]:
    return draw_groups(nodes, 4, bytes(range(32)))


@pytest.mark.parametrize("form_of", [plain, noised])
@pytest.mark.parametrize("malicious", [False, True])
def test_a_group_is_what_the_protocol_opens(form_of: object, *, malicious: bool) -> None:
    matrix = rows()
    made = SecretSums(inner(matrix), form_of, SEED, groups=in_groups)(POST, attempt())  # type: ignore[arg-type]
    assert made.groups == in_groups(NODES)
    for row, group in zip(made.rows, made.groups, strict=True):
        form: SumForm = form_of(len(group), None)  # type: ignore[operator]
        words = {
            node: form.encode(matrix[NODES.index(node)], Metrics(1, {}), source_of(KEY, node))
            for node in group
        }
        setting = make_setting(
            words=form.length, word_bits=form.word_bits, malicious=malicious, dropout=0.2
        )
        opened = Rig(setting, group, words).run()
        assert isinstance(opened, Opened)
        np.testing.assert_array_equal(form.decode(opened.total, len(group)).mean, row)


@pytest.mark.parametrize("clip", [CLIP, CLIP / 8])
@pytest.mark.parametrize("form_of", [plain, noised])
def test_many_nodes_at_once_send_what_each_sends(form_of: object, clip: float) -> None:
    form = replace(form_of(4, None), clip=clip)  # type: ignore[operator]
    drawn = np.random.default_rng(9).standard_normal((3000, SIZE)).astype(np.float32)
    drawn[7] = 0
    told = [Metrics(1, {})] * len(drawn)
    order = np.random.default_rng(9).permutation(len(drawn)).tolist()
    words = words_of(form, drawn, told, [(place, source_of(KEY, place)) for place in order])
    alone = (form.encode(drawn[place], told[place], source_of(KEY, place)) for place in order)
    np.testing.assert_array_equal(list(words), list(alone))


def test_the_rows_are_the_means_of_the_groups() -> None:
    matrix = rows()
    made = SecretSums(inner(matrix), plain, SEED, groups=in_groups)(POST, attempt())  # type: ignore[arg-type]
    for row, group in zip(made.rows, made.groups, strict=True):
        mean = matrix[[NODES.index(node) for node in group]].mean(axis=0)
        np.testing.assert_allclose(row, mean, atol=1e-6)
    np.testing.assert_array_equal(made.weights, [len(group) for group in made.groups])


def test_a_node_that_is_lost_is_missing_from_its_group_alone() -> None:
    matrix = rows()
    whole = SecretSums(inner(matrix), plain, SEED, groups=in_groups)(POST, attempt())  # type: ignore[arg-type]
    first = whole.groups[0]
    left = [node for node in NODES if node != first[0]]
    kept = matrix[[NODES.index(node) for node in left]]
    made = SecretSums(inner(kept, left), plain, SEED, groups=in_groups)(POST, attempt())  # type: ignore[arg-type]
    assert made.groups == (first[1:], *whole.groups[1:])
    np.testing.assert_array_equal(made.rows[1:], whole.rows[1:])
    only = SecretSums(inner(kept[:0], ()), plain, SEED, groups=in_groups)(POST, attempt())  # type: ignore[arg-type]
    assert len(only.rows) == 0


@pytest.mark.parametrize("form_of", [plain, noised])
def test_no_clip_holds_a_liar_and_it_adds_no_noise(form_of: object) -> None:
    matrix = rows()
    long = matrix * np.float32(8)  # four times the clip
    form: SumForm = form_of(4, None)  # type: ignore[operator]
    form = replace(form, members=4)
    words = overlong(form, long[0], Metrics(1, {}), source_of(KEY, 1))
    if isinstance(form.encoding, FixedPoint):
        step, expected = 4 / form.encoding.scale, long[0]
        # beyond what a sum of four holds it wraps around, as it does when deployed
        assert np.abs(expected).max() < 4 * CLIP
    else:
        step, expected = 4 * 4 / 500.0, long[0]
    np.testing.assert_allclose(form.encoding.decode(words), expected, atol=step)
    honest = form.encode(long[0], Metrics(1, {}), source_of(KEY, 1))
    length = np.linalg.norm(form.encoding.decode(honest))
    if isinstance(form.encoding, FixedPoint):
        assert length == pytest.approx(CLIP, rel=1e-3)


def test_hostile_nodes_are_coded_so() -> None:
    matrix = rows()
    matrix[0] *= 100
    honest = SecretSums(inner(matrix), plain, SEED)(POST, attempt())  # type: ignore[arg-type]
    lied = SecretSums(inner(matrix), plain, SEED, hostile={NODES[0]})(POST, attempt())  # type: ignore[arg-type]
    assert np.linalg.norm(honest.rows[0]) < CLIP
    assert np.linalg.norm(lied.rows[0]) > 2 * CLIP


def test_an_empty_round_stays_empty() -> None:
    empty = Attempt(1, 1, (), RecordDict())
    assert len(SecretSums(inner(rows()[:0], ()), plain, SEED)(POST, empty).rows) == 0  # type: ignore[arg-type]
