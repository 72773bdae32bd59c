"""The base class of triggers, and the checks of what a trigger returns."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from langgraph_dynrag.drafts.draft import Verdict
from langgraph_dynrag.triggers import BaseTrigger, Never, Once, Trigger
from langgraph_dynrag.triggers.base import check_needs, check_trigger, verdict_before, verdict_on
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds
from tests.langgraph_dynrag.recorded import view


@dataclass(frozen=True, slots=True)
class Own(BaseTrigger):
    """Returns what it is given."""

    returned: object = None
    n: Annotated[int, Bounds(least=1)] = 1

    def judge(self, view):
        return self.returned

    def before(self, question):
        return self.returned


def test_a_base_trigger_judges_sentences_reads_no_signals_and_lets_the_model_write_first():
    class Quiet(BaseTrigger):
        def judge(self, view):
            return Verdict(False, "quiet")

    assert isinstance(Quiet(), Trigger)
    assert (str(Quiet().unit), Quiet().needs, Quiet().before("Who?")) == ("sentence", frozenset(), None)


def test_fields_of_a_subclass_are_checked_against_their_annotations():
    with pytest.raises(ConfigurationError, match="n is 0; at least 1 is needed"):
        Own(n=0)


def test_a_verdict_is_passed_on_unchanged():
    verdict = Verdict(True, "the reason")
    assert verdict_on(Own(verdict), view()) is verdict
    assert verdict_before(Own(verdict), "Who?") is verdict
    assert verdict_before(Own(None), "Who?") is None
    assert verdict_before(Once(), "Who?").retrieve
    assert verdict_before(Never(), "Who?") is None


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (True, r"Verdict\(True, 'the reason'\)"),
        (None, r"Verdict\(False, 'the reason'\)"),
        ("yes", r"returned 'yes' \(str\)"),
    ],
)
def test_anything_but_a_verdict_is_refused_with_the_line_to_write(returned, line):
    with pytest.raises(ConfigurationError, match=line) as refused:
        verdict_on(Own(returned), view())
    assert "judge() returned" in str(refused.value)
    if returned is not None:
        with pytest.raises(ConfigurationError, match=r"before\(\) returned"):
            verdict_before(Own(returned), "Who?")


@pytest.mark.parametrize(
    ("unit", "advice"), [("sentence", r"Unit\('sentence'\)"), (None, r'Unit\("sentence"\)'), (5, r'Unit\("sentence"\)')]
)
def test_a_unit_of_the_wrong_type_is_refused_with_the_line_to_write(unit, advice):
    class Broken(BaseTrigger):
        pass

    Broken.unit = unit
    with pytest.raises(ConfigurationError, match=f"the unit of .* a Unit is needed, such as {advice}"):
        check_trigger(Broken())


@pytest.mark.parametrize("needs", [["logprob"], "logprob", {"logprob": 1}, {1}, None])
def test_needs_that_are_not_a_set_of_names_are_refused_with_the_known_signals(needs):
    class Broken(BaseTrigger):
        pass

    Broken.needs = needs
    with pytest.raises(ConfigurationError, match="a frozenset of signals is needed; known: logprob, entropy"):
        check_needs(Broken())


@pytest.mark.parametrize("needs", [frozenset(), {"logprob"}, frozenset({"entropy"}), {"logprob": 1}.keys()])
def test_any_set_of_names_passes_the_check(needs):
    class Reading(BaseTrigger):
        pass

    Reading.needs = needs
    check_trigger(Reading())
