"""What somebody wants to do with a model: the question a verdict answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from core.kernel.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a model.

    Attributes:
        commercial: In a business, its internal work included, or to earn money.
        monthly_users: Monthly active users of the products of the business; None: not known.
        annual_revenue_usd: US dollars a year, of the business as a whole; None: not known.
        modifies: The model is changed or fine-tuned.
        distributes: The model, or what is made of it, is given to others.
        hosts_api: Others reach the model over a network: through a product or an API.
        trains_on_outputs: Other models are trained on what it puts out.
        in_eu: The person lives, or the company is based, in the European Union.
    """

    commercial: bool = True
    monthly_users: int | None = None
    annual_revenue_usd: float | None = None
    modifies: bool = False
    distributes: bool = False
    hosts_api: bool = False
    trains_on_outputs: bool = False
    in_eu: bool = False

    def meets(self, condition: str) -> bool:
        """Whether the use is all that a condition such as `modifies+distributes` names."""
        flags = {
            "commercial": self.commercial,
            "modifies": self.modifies,
            "distributes": self.distributes,
            "hosts": self.hosts_api,
            "trains": self.trains_on_outputs,
        }
        return all(flags[name] for name in condition.split("+"))


USES = {
    "Internal tool": Use(monthly_users=1_000),
    "Commercial chat product, 10 M users": Use(
        monthly_users=10_000_000, annual_revenue_usd=50e6, hosts_api=True
    ),
    "Hosted API for others": Use(monthly_users=100_000, annual_revenue_usd=5e6, hosts_api=True),
    "Fine-tune and publish": Use(
        commercial=False, modifies=True, distributes=True, monthly_users=0, annual_revenue_usd=0
    ),
    "Research": Use(commercial=False, modifies=True, monthly_users=0, annual_revenue_usd=0),
}
_WORD = re.compile(r"[a-z0-9]+")
_NEAREST = 2


def use_keys() -> dict[str, str]:
    """The titles of the uses by their keys: the first two words, such as `commercial_chat`."""
    return {"_".join(_words(title)[:2]): title for title in USES}


def find_use(name: str) -> str:
    """The title of the use with this key or title, in any case and punctuation.

    Raises:
        InvalidInput: There is no such use; names the nearest, and the keys of all.
    """
    known = use_keys() | {"_".join(_words(title)): title for title in USES}
    wanted = "_".join(_words(name))
    if wanted in known:
        return known[wanted]
    near = dict.fromkeys(
        known[each] for each in get_close_matches(wanted, known, n=_NEAREST * 2, cutoff=0)
    )
    raise InvalidInput(
        f"There is no use {name!r}.",
        remedy=f"The nearest: {' or '.join(list(near)[:_NEAREST])}. "
        f"There are: {', '.join(use_keys())}.",
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
