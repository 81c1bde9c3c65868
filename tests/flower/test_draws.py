"""Draws in secret: each node by itself, the same in every attempt, from a key nobody knows."""

import math

import pytest

from fedsec.flower.draws import Poisson

KEY = bytes(range(32))
READY = list(range(1000, 1100))


def test_each_node_is_drawn_by_itself_with_the_same_probability() -> None:
    draw = Poisson(0.1, 100, KEY)
    sizes = [len(draw(READY, number, 1)) for number in range(1, 501)]
    mean, variance = 10.0, 9.0
    assert abs(sum(sizes) / 500 - mean) < 5 * math.sqrt(variance / 500)
    spread = sum((size - mean) ** 2 for size in sizes) / 500
    assert abs(spread / variance - 1) < 5 * math.sqrt(2 / 500)  # a fixed size would have 0
    often = sum(READY[7] in draw(READY, number, 1) for number in range(1, 2001))
    assert abs(often - 200) < 5 * math.sqrt(2000 * 0.09)


def test_a_repeated_round_keeps_its_draw() -> None:
    draw = Poisson(0.3, 100, KEY)
    assert draw(READY, 4, 1) == draw(READY, 4, 2)
    assert draw(READY, 4, 1) != draw(READY, 5, 1)


def test_who_else_is_ready_changes_nothing() -> None:
    draw = Poisson(0.3, 100, KEY)
    whole, part = draw(READY, 1, 1), draw(READY[:50], 1, 1)
    assert part == [node for node in whole if node in READY[:50]]
    assert draw(READY[::-1], 1, 1) == whole == sorted(whole)


def test_the_key_comes_from_the_system_and_is_not_shown() -> None:
    first, second = Poisson(0.5, 100), Poisson(0.5, 100)
    assert first(READY, 1, 1) != second(READY, 1, 1)
    assert first.key.hex() not in repr(first)
    assert repr(first) == "Poisson(rate=0.5, population=100)"


def test_of_more_nodes_than_the_public_number_the_same_ones_are_left_out() -> None:
    draw = Poisson(0.5, 10, KEY)
    drawn = [node for number in range(1, 100) for node in draw(READY, number, 1)]
    assert len(set(drawn)) == 10
    assert len(drawn) == pytest.approx(99 * 5, abs=5 * math.sqrt(99 * 2.5))


def test_nobody_may_be_drawn() -> None:
    draw = Poisson(0.001, 100, KEY)
    assert [] in [draw(READY[:3], number, 1) for number in range(1, 10)]
