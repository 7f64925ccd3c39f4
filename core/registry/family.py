"""The family tree of models: base model, fine-tunes, quantisations, adapters, merges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.registry.description import Relation


@dataclass(frozen=True)
class Relative:
    """A model with the ids of what it was made from; `relation` is None where nobody says."""

    id: str
    base_ids: tuple[str, ...] = ()
    relation: Relation | None = None


@dataclass(frozen=True)
class Node:
    """A model in a tree. `is_known` is False for one that is named as a base, and nowhere else."""

    id: str
    relation: Relation | None
    is_known: bool
    children: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Family:
    """The tree that a model stands in, from its oldest known ancestor.

    `ancestors` are those above it, its base first. `other_bases` are the further bases of a
    merge; it stands in their trees too. `cycle` names the models that claim to be made from
    each other; the tree is cut there.
    """

    root: Node
    ancestors: tuple[str, ...]
    other_bases: tuple[str, ...] = ()
    cycle: tuple[str, ...] = ()


# Of two models with the same base, what is nearer to it comes first.
_ORDER: Mapping[Relation | None, int] = {
    "finetune": 0, "merge": 1, "adapter": 2, "quantized": 3, None: 4,
}  # fmt: skip


def tree(models: Iterable[Relative], model_id: str) -> Family:
    """The family of `model_id` among `models`.

    Ids are compared without regard to case. A base that is no model of `models` is kept as a node
    that is not known, because the name alone is worth showing.

    Args:
        models: Registered ones and those of the catalogue; of two with one id, the first counts.
        model_id: Whose family; it may be unknown itself.
    """
    known: dict[str, Relative] = {}
    for model in models:
        known.setdefault(model.id.casefold(), model)
    names = {key: model.id for key, model in known.items()}
    for model in known.values():
        for base in model.base_ids:
            names.setdefault(base.casefold(), base)
    names.setdefault(model_id.casefold(), model_id)
    ancestors, cycle = _ancestors(known, model_id.casefold())
    root = ancestors[-1] if ancestors else model_id.casefold()
    own = known.get(model_id.casefold())
    return Family(
        root=_node(root, known, names, _children(known)),
        ancestors=tuple(names[key] for key in ancestors),
        other_bases=own.base_ids[1:] if own is not None else (),
        cycle=tuple(names[key] for key in cycle),
    )


def _ancestors(known: Mapping[str, Relative], start: str) -> tuple[list[str], list[str]]:
    """The bases above a model, the nearest first; and the cycle that ends them, if there is one."""
    path = [start]
    while (model := known.get(path[-1])) is not None and model.base_ids:
        base = model.base_ids[0].casefold()
        if base in path:
            return path[1:], path[path.index(base) :]
        path.append(base)
    return path[1:], []


def _children(known: Mapping[str, Relative]) -> dict[str, list[str]]:
    """Which models were made from which; a merge from each of its bases."""
    found: dict[str, list[str]] = {}
    for key, model in known.items():
        for base in dict.fromkeys(base.casefold() for base in model.base_ids):
            found.setdefault(base, []).append(key)
    return found


def _node(
    root: str,
    known: Mapping[str, Relative],
    names: Mapping[str, str],
    children: Mapping[str, list[str]],
) -> Node:
    # From the leaves up, without recursion: a chain may be as long as someone cares to make it.
    parents: dict[str, str] = {root: ""}
    order = [root]
    for key in order:
        for child in children.get(key, ()):
            if child not in parents:
                parents[child] = key
                order.append(child)
    below: dict[str, list[Node]] = {}
    for key in reversed(order):
        model = known.get(key)
        relation = model.relation if model is not None and model.base_ids else None
        found = sorted(
            below.pop(key, []), key=lambda node: (_ORDER[node.relation], node.id.casefold())
        )
        node = Node(names[key], relation, model is not None, tuple(found))
        below.setdefault(parents[key], []).append(node)
    return below[""][0]
