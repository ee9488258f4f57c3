"""Scores of a response from the plan that it was made by, without reading its text: what the oracle is tested against."""

from rlphf.testbed.language import FACTS, MAX_SENTENCES, TONE_OF, WORDING_OF, Plan


def planned_scores(plan: Plan) -> dict[str, float]:
    """Return the scores of a response from its plan, without reading its text: what the oracle is tested against."""
    facts, said = plan.facts, plan.remarks
    result = {name: sum(w == wording for _, w in facts) / len(facts) for name, wording in WORDING_OF.items()}
    result["P2A"] = 1 - (len(plan.items) - 1) / (MAX_SENTENCES - 1)
    result["P2B"] = len(facts) / FACTS
    result |= {name: sum(r.tone == tone for r in said) / max(1, len(said)) for name, tone in TONE_OF.items()}
    result["helpfulness"] = len(set(plan.items)) / len(plan.items)
    return result
