"""Values of any origin as JSON of bounded size, for the record of what happened."""

from collections.abc import Iterable, Mapping

MAX_TOTAL = 256 << 10  # characters of one event's detail, about
MAX_TEXT = 2000  # characters of one text
MAX_DEPTH = 6
_CUT = "..."
_INTEGERS = range(-(1 << 63), 1 << 64)


def plain(detail: Mapping[str, object]) -> dict[str, object]:
    """Returns `detail` as JSON knows it; what is too much is cut, where it is says "...".

    NaN and infinity become text, as does whatever JSON does not know.

    >>> plain({"loss": float("nan"), "nodes": (1, 2), "raw": b"x"})
    {'loss': 'nan', 'nodes': [1, 2], 'raw': "b'x'"}
    """
    return _Cutter().table(detail, MAX_DEPTH)


class _Cutter:
    """Copies values as long as there is room."""

    def __init__(self) -> None:
        self._room = MAX_TOTAL

    def table(
        self, values: Mapping[object, object] | Mapping[str, object], depth: int
    ) -> dict[str, object]:
        copy: dict[str, object] = {}
        for key, value in values.items():
            if self._room <= 0:
                copy[_CUT] = _CUT
                break
            name = self._text(str(key))
            copy[name] = self._value(value, depth - 1)
        return copy

    def _list(self, values: Iterable[object], depth: int) -> list[object]:
        copy: list[object] = []
        for value in values:
            if self._room <= 0:
                copy.append(_CUT)
                break
            copy.append(self._value(value, depth - 1))
        return copy

    def _value(self, value: object, depth: int) -> object:
        self._room -= 8  # a number, a bracket, a comma
        match value:
            case None | bool():
                copy: object = value
            case int():
                bits = value.bit_length()
                copy = value if value in _INTEGERS else f"an integer of {bits} bits"
            case float():
                copy = value if abs(value) < float("inf") else str(value)
            case Mapping() if depth > 0:
                copy = self.table(value, depth)
            case list() | tuple() if depth > 0:
                copy = self._list(value, depth)
            case Mapping() | list() | tuple():
                copy = _CUT
            case _:
                copy = self._text(str(value))
        return copy

    def _text(self, text: str) -> str:
        cut = text[: max(0, min(MAX_TEXT, self._room))]
        self._room -= len(cut)
        return cut if len(cut) == len(text) else cut + _CUT
