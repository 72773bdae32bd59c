import pytest

from rag_backbone.checks import check_type, clause, refuse_unknown
from rag_backbone.errors import ConfigurationError


def test_the_error_for_an_unknown_name_suggests_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match=r"Model has no argument 'max_token' \(did you mean 'max_tokens'\?\)"):
        refuse_unknown(["max_token", "seed"], ["max_tokens", "seed"], "Model")


def test_the_error_for_a_name_without_a_near_match_lists_all_names() -> None:
    with pytest.raises(ConfigurationError, match=r"'zzz'\. Known: a, b\."):
        refuse_unknown(["zzz"], ["b", "a"], "Model")


@pytest.mark.parametrize("value", ["3", 3.0, None, True, [3]])
def test_the_error_for_a_wrong_type_names_the_value_and_its_type(value) -> None:
    with pytest.raises(ConfigurationError, match=rf"k is .*\({type(value).__name__}\); a whole number is needed"):
        check_type("k", value, int, "a whole number")


def test_known_names_and_correct_types_pass() -> None:
    refuse_unknown([], [], "Model")
    refuse_unknown(["seed"], ["seed"], "Model")
    check_type("k", 3, int, "a whole number")
    check_type("x", True, (bool, int), "a number")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It failed.", "It failed"),
        ("It failed", "It failed"),
        ("One.\n\nTwo. ", "One. Two"),
        ("Wait...", "Wait"),
        ("", ""),
    ],
)
def test_an_error_within_a_sentence_has_no_full_stop_and_no_line_ends(text, expected):
    assert clause(OSError(text)) == expected
