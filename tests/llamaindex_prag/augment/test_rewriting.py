"""Rewrites extracted from replies."""

import pytest

from llamaindex_prag.augment.rewriting import faithful_rewrite

TEXT = "The Harl Gate was built in 1871 by Ume Stoll. It stands near Ostrim and has twenty-two doors."
OTHER = "Ume Stoll erected the Harl Gate in 1871. One finds it close to Ostrim, with its twenty-two doors."


@pytest.mark.parametrize(
    "reply",
    [
        OTHER,
        f"Here is the rewritten passage:\n\n{OTHER}",
        f'Sure! The new text reads as follows: "{OTHER}"',
        f"Title: Harl Gate\nPassage: {OTHER}",
        f"<think>short</think>{OTHER}",
        f"{OTHER}\n\nYou can make it more exciting:\n\nUme!",
        f"{OTHER} Few know that it",
    ],
)
def test_text_around_the_rewrite_is_removed(reply):
    assert faithful_rewrite(reply, TEXT) == OTHER


@pytest.mark.parametrize(
    "reply",
    [
        "",
        TEXT,
        TEXT.upper(),
        "I cannot do that.",
        OTHER * 4,
        OTHER.replace("Ume Stoll", "Theodora Lillis of London"),
        "A gate was built long ago by an engineer, close to a town.",
    ],
)
def test_replies_without_a_faithful_rewrite_are_rejected(reply):
    assert faithful_rewrite(reply, TEXT) is None
