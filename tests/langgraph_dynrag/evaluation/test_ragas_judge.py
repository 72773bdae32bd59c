"""Metrics of ragas as judges. What needs ragas runs with `make test-ragas`."""

import importlib.util
import json

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import PydanticOutputParser

from langgraph_dynrag import BM25Retriever, MiniLMEmbeddings, evaluate, ragas_judge
from langgraph_dynrag.evaluation.judges import Judge, check_judge
from rag_backbone.errors import ConfigurationError, MissingExtraError
from tests.langgraph_dynrag.evaluation.test_evaluating import BRIDGES, ONE, REAL, SHORT, bridges
from tests.langgraph_dynrag.scripted import DOCUMENTS

INSTALLED = importlib.util.find_spec("ragas") is not None
needs_ragas = [
    pytest.mark.ragas,
    pytest.mark.skipif(not INSTALLED, reason="ragas is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Replies(FakeListChatModel):
    """Replies in order, and parses them by the schema that is asked for."""

    prompts: list = []  # noqa: RUF012

    def with_structured_output(self, schema, **kwargs):
        return self | PydanticOutputParser(pydantic_object=schema)

    def _call(self, messages, *args, **kwargs):
        self.prompts.append(messages[-1].content)
        return super()._call(messages, *args, **kwargs)


@pytest.mark.skipif(INSTALLED, reason="ragas is installed")
@pytest.mark.parametrize("name", ["faithfulness", "ragas:faithfulness"])
def test_without_the_extra_the_error_says_what_to_install(name):
    with pytest.raises(MissingExtraError, match=r"the judge 'ragas:faithfulness' needs ragas.*dynprag\[ragas\]"):
        ragas_judge(name)


def test_a_name_is_text():
    with pytest.raises(ConfigurationError, match=r"the judge is 3; the name of a metric is needed"):
        ragas_judge(3)


class TestWithRagas:
    """The real metrics."""

    pytestmark = needs_ragas

    def test_a_metric_is_found_by_its_name_and_its_version_is_in_the_report(self):
        judge = ragas_judge("ragas:exact_match")
        assert isinstance(judge, Judge)
        check_judge(judge)
        assert judge.name.startswith("ragas:exact_match (ragas ")
        assert judge.needs == {"reference"}
        assert [judge("Who?", answer, "Wray", ()) for answer in ("Wray", "Pike")] == [1.0, 0.0]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "faithfullness",
                r"no metric 'faithfullness' of ragas \(did you mean 'faithfulness'\?\); known: answer_acc",
            ),
            ("", "no metric '' of ragas"),
            ("base_metric", "no metric 'base_metric'"),
            ("distance_measure", "no metric 'distance_measure'"),
            ("tool_call_f1", "ragas:tool_call_f1 judges conversations, not single answers; .* faithfulness"),
            ("multi_modal_faithfulness", "sends images through a client of ragas' own"),
            ("instance_specific_rubrics", "reads rubrics, which an evaluation does not have"),
            ("summary_score", "ragas:summary_score reads reference_contexts, which an evaluation does not have"),
            ("faithfulness", r"ragas:faithfulness asks a model; pass one: ragas_judge\('faithfulness', model\)"),
            ("semantic_similarity", r"ragas:semantic_similarity compares embeddings; pass .*embeddings=MiniLMEmbed"),
        ],
    )
    def test_what_cannot_judge_is_refused_by_name(self, name, message):
        with pytest.raises(ConfigurationError, match=message):
            ragas_judge(name)

    def test_wrong_options_and_models_are_refused(self):
        model = Replies(responses=["{}"])
        with pytest.raises(
            ConfigurationError, match=r"ragas:answer_relevancy has no argument 'strictnes' \(did you mean 'strictness'"
        ):
            ragas_judge("answer_relevancy", model, embeddings=MiniLMEmbeddings(), strictnes=1)
        with pytest.raises(ConfigurationError, match=r"\(FakeListChatModel\) cannot judge: .*with_structured_output"):
            ragas_judge("faithfulness", FakeListChatModel(responses=["x"]))
        with pytest.raises(
            ConfigurationError, match="ragas:answer_correctness cannot be made: Embeddings are required"
        ):
            ragas_judge("answer_correctness", model)

    @pytest.mark.skipif(importlib.util.find_spec("sacrebleu") is not None, reason="sacrebleu is installed")
    def test_a_package_that_a_metric_needs_is_named_before_anything_is_judged(self):
        with pytest.raises(ConfigurationError, match="ragas:bleu_score cannot be made: .*pip install sacrebleu"):
            ragas_judge("bleu_score")

    def test_a_metric_asks_the_model_about_answer_and_passages(self, monkeypatch):
        sent = []
        monkeypatch.setattr("requests.post", lambda *args, **kwargs: sent.append(args))
        replies = [
            '{"statements": ["Wray built it.", "It is old."]}',
            json.dumps({"statements": [{"statement": "s", "reason": "r", "verdict": v} for v in (1, 0)]}),
        ]
        model = Replies(responses=replies)
        judge = ragas_judge("faithfulness", model)
        assert judge.name.startswith("ragas:faithfulness by Replies (ragas ")
        assert judge.needs == {"contexts"}
        assert judge("Who built it?", "Wray built it; it is old.", "", ["Wray was a mason.", "He built it."]) == 0.5
        first, second = model.prompts
        assert "Wray built it; it is old." in first
        assert "Wray was a mason.\\nHe built it." in second
        assert sent == []  # the use of the model is not reported

    async def test_a_judge_can_be_called_where_an_event_loop_runs(self):
        assert ragas_judge("string_presence")("Who?", "It was Wray.", "Wray", ()) == 1.0

    def test_a_rubric_with_a_reference_needs_one(self):
        model = Replies(responses=['{"feedback": "f", "score": 4}'])
        assert ragas_judge("rubrics_score_without_reference", model).needs == frozenset()
        judge = ragas_judge("rubrics_score_with_reference", model)
        assert judge.needs == {"reference"}
        assert judge("Who?", "Wray", "Wray", ()) == 4.0

    def test_an_error_rate_is_named_as_such(self):
        assert "lower is better" in ragas_judge("noise_sensitivity", Replies(responses=["{}"])).name

    def test_embeddings_of_langchain_are_compared(self):
        judge = ragas_judge("semantic_similarity", embeddings=MiniLMEmbeddings())
        assert judge.name.startswith("ragas:semantic_similarity by MiniLMEmbeddings")
        same, near, far = (
            judge("", a, "The ferry was built.", ()) for a in ("The ferry was built.", "A boat.", "Jam.")
        )
        assert same == pytest.approx(1.0)
        assert same > near > far

    def test_scores_are_kept_with_the_answers_and_resumed(self, tmp_path):
        model, retriever = bridges()
        options = {"presets": [], "records": tmp_path / "r.jsonl", "judge": ragas_judge("string_presence"), **ONE}
        found = evaluate(model, retriever, BRIDGES[:5], **options)
        assert found.judge.startswith("ragas:string_presence")
        assert found.row("single").judged.value == 1.0
        assert 0 < found.row("no_retrieval").judged.value < 1
        lines = (tmp_path / "r.jsonl").read_text().splitlines()
        assert len(lines) == 5 * 2 * 2
        evaluate(model, retriever, BRIDGES[:5], **options)
        assert (tmp_path / "r.jsonl").read_text().splitlines() == lines

    def test_passages_are_needed_and_a_model_that_fails_is_noted(self, chat, tmp_path):
        """The tiny model's context window is smaller than the metric's prompt."""
        judge = ragas_judge("context_recall", chat)
        assert judge.needs == {"reference", "contexts"}
        retriever = BM25Retriever.from_documents([*DOCUMENTS, Document("A fact.", id="fact")])
        found = evaluate(chat, retriever, REAL, presets=[], judge=judge, **SHORT)
        assert {row.judged for row in found.rows} == {None}
        notes = [note for note in found.notes if "judge" in note]
        assert notes[0] == "The judge was not asked about 3 answers, because no passage was found."
        assert notes[1].startswith("The judge gave no score for 6 answers; the first failure: ")
        assert str(found).splitlines()[0].endswith(f"judged by {judge.name}")

    def test_a_metric_without_its_reference_is_refused_before_anything_is_asked(self):
        model, retriever = bridges()
        asked = [q["question"] for q in BRIDGES]
        with pytest.raises(ConfigurationError, match="ragas:exact_match .* none of the 20 questions has one"):
            evaluate(model, retriever, asked, presets=[], judge=ragas_judge("exact_match"), **ONE)
        assert model.calls == []
