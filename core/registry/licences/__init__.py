"""What the licence of a model says: its text, its name, 22 answers, and a verdict for a use.

Nothing here is legal advice. Answers were written from the text of each licence, and every answer
quotes the words it rests on; a licence without answers is "needs review", never guessed. All of it
is the same for everybody and ships with Bud, so no actor is asked for.
"""

from core.registry.licences.answers import answers, curated_keys, is_curated
from core.registry.licences.cards import of_repository
from core.registry.licences.identification import by_id, identify
from core.registry.licences.index import licence, licences
from core.registry.licences.questions import QUESTIONS
from core.registry.licences.texts import passage, text
from core.registry.licences.uses import USES, Use, find_use, use_keys
from core.registry.licences.verdicts import verdict

__all__ = [
    "QUESTIONS",
    "USES",
    "Use",
    "answers",
    "by_id",
    "curated_keys",
    "find_use",
    "identify",
    "is_curated",
    "licence",
    "licences",
    "of_repository",
    "passage",
    "text",
    "use_keys",
    "verdict",
]
