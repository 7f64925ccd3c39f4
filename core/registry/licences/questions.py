"""The 22 questions that are asked of every licence."""

from __future__ import annotations

from core.registry.licences.schemas import Question

_ALL = (
    Question(
        "modify", "Modify", "May you change or fine-tune the model?", True,
        "The text does not say that the model may be changed.",
    ),
    Question(
        "distribute_modified", "Pass on changes", "May you pass on a changed model?", True,
        "The text does not say that a changed model may be passed on.",
    ),
    Question(
        "core_restrictions", "Core limits",
        "Is the licence limited to some people, places, fields or purposes?", False,
        "The text limits neither who may use the model nor where nor for what field.",
    ),
    Question(
        "derivative_limits", "Limits on derivatives",
        "Does the licence limit what you may make of the model?", False,
        "The text sets no limits of its own for what is made of the model.",
    ),
    Question(
        "naming_rules", "Names",
        "Are there names that you must, or must not, use?", False,
        "The text says nothing about names.",
    ),
    Question(
        "copyleft", "Copyleft",
        "Must what you make of it be passed on under the same licence?", False,
        "The text does not ask that derivatives carry the same licence.",
    ),
    Question(
        "commercial_use", "Commercial use", "May you use the model commercially?", True,
        "The text does not mention commercial use.",
    ),
    Question(
        "user_threshold", "User limit",
        "Does something change above a number of users?", False,
        "The text sets no limit on the number of users.",
    ),
    Question(
        "revenue_threshold", "Revenue limit",
        "Does something change above an amount of revenue?", False,
        "The text sets no limit on revenue.",
    ),
    Question(
        "royalties", "Royalties", "Must you pay for the use?", False,
        "The text says nothing about payment for the use.",
    ),
    Question(
        "attribution", "Attribution", "Must you name the authors or the model?", False,
        "The text does not ask for the authors to be named.",
    ),
    Question(
        "notices", "Notices",
        "Must you pass on the licence text or notices?", False,
        "The text does not ask for notices to be kept.",
    ),
    Question(
        "publish_changes", "State changes",
        "Must you say what you changed, or publish it?", False,
        "The text does not ask for changes to be stated or published.",
    ),
    Question(
        "hosted_api_use", "Hosted service",
        "May you let others use the model over a network?", True,
        "The text does not mention use over a network.",
    ),
    Question(
        "rate_limits", "Rate limits",
        "Does the licence limit how much or how fast you may use it?", False,
        "The text does not limit how much or how fast the model may be used.",
    ),
    Question(
        "patent_grant", "Patent grant", "Does the licence grant patents?", True,
        "The text says nothing about patents.",
    ),
    Question(
        "patent_retaliation", "Ends if you sue",
        "Do you lose rights when you sue over patents or other rights in the model?", False,
        "The text does not tie the licence to law suits.",
    ),
    Question(
        "training_on_outputs", "Train on outputs",
        "May you train other models on what the model puts out?", True,
        "The text says nothing about the model's outputs: nothing in it forbids training on them.",
        "yes",
    ),
    Question(
        "privacy_terms", "Personal data",
        "Are there terms about personal data?", False,
        "The text says nothing about personal data.",
    ),
    Question(
        "revocation", "Can it end", "Can the licensor end the licence?", False,
        "The text says nothing about the licence ending.",
    ),
    Question(
        "liability", "Without liability",
        "Does the licensor exclude warranty and liability?", False,
        "The text says nothing about warranty or liability.",
    ),
    Question(
        "use_restrictions", "Forbidden uses",
        "Is there a list of uses that are forbidden?", False,
        "The text has no list of forbidden uses.",
    ),
)  # fmt: skip
QUESTIONS = {question.key: question for question in _ALL}
