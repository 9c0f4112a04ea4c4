"""Whether a concatenation joins numbers of different meaning: boxes and scores, offsets and sizes.

In: a `Graph` and one of its concatenations.  Out: yes or no. Numbers are taken to differ in meaning when some are
shares (0..1, of a sigmoid or softmax) and some are not; or when different convolutions made them of the same places of
the picture, in different widths. What different scales say of the same thing may be joined, and so may anything that
is calculated with later.
"""

from itertools import combinations
from typing import Final

from tinysight_converters.graph import Graph, Node

__all__ = ["joins_meanings"]

SHARES: Final = {"LOGISTIC", "SOFTMAX"}
CONVOLUTIONS: Final = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}
SHAPING: Final = {
    "CONCATENATION",
    "DEQUANTIZE",
    "EXPAND_DIMS",
    "PACK",
    "QUANTIZE",
    "RESHAPE",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
}
KEEPING: Final = {*SHAPING, "LOGISTIC"}  # a sigmoid of all leaves boxes and scores what they are

Makers = dict[int, Node]
Readers = dict[int, list[Node]]


def joins_meanings(graph: Graph, node: Node, makers: Makers, readers: Readers) -> bool:
    """Whether it ends in an output, and what it joins differs in meaning.

    Args:
        graph: of the model.
        node: a concatenation.
        makers: the operator that makes each tensor; none for inputs and constants.
        readers: the operators that read each tensor.
    """
    if not _is_answer(graph, node, readers):
        return False
    joined = [index for index in node.inputs if index in makers]
    if len({_shares(index, makers) for index in joined} - {frozenset()}) > 1:
        return True
    maps = {index: _maps(graph, index, makers) for index in joined}
    return any(
        graph.tensors[one].shape != graph.tensors[other].shape
        and not maps[one].keys() & maps[other].keys()
        and {*maps[one].values()} & {*maps[other].values()}
        for one, other in combinations(joined, 2)
    )


def _is_answer(graph: Graph, node: Node, readers: Readers) -> bool:
    """Whether what it makes is an output, perhaps in another shape."""
    waiting, seen = list(node.outputs), set[int]()
    while waiting:
        index = waiting.pop()
        if index in graph.outputs:
            return True
        if index not in seen:
            seen.add(index)
            waiting += [out for each in readers.get(index, ()) if each.op in KEEPING for out in each.outputs]
    return False


def _shares(tensor: int, makers: Makers) -> frozenset[bool]:
    """Whether its numbers are shares, before they were given another shape; both where it joins such and others."""
    found, waiting, seen = set(), [tensor], set[int]()
    while waiting:
        index = waiting.pop()
        maker = makers.get(index)
        if index in seen:
            continue
        seen.add(index)
        if maker is not None and maker.op in SHAPING:
            waiting += [each for each in maker.inputs if each in makers]
        else:
            found.add(maker is not None and maker.op in SHARES)
    return frozenset(found)


def _maps(graph: Graph, tensor: int, makers: Makers) -> dict[int, tuple[int, ...]]:
    """The maps that it was calculated from, each with its height and width: of the convolutions nearest to it."""
    found, waiting, seen = {}, [tensor], set[int]()
    while waiting:
        index = waiting.pop()
        maker = makers.get(index)
        if index in seen or maker is None:
            continue
        seen.add(index)
        if maker.op in CONVOLUTIONS:
            found[index] = tuple(graph.tensors[index].shape[1:3])
        else:
            waiting += maker.inputs
    return found
