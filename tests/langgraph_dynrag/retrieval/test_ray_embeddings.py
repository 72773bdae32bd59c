"""Embedding documents on a real Ray cluster of two nodes on this machine."""

import asyncio
import copy
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from langgraph_dynrag import LocalIndex, MiniLMEmbeddings, RayEmbeddings
from rag_backbone.errors import ConfigurationError, MissingExtraError, ServerError
from tests.langgraph_dynrag.commands.command import run
from tests.ray_clusters import NODE, command_output, two_nodes


class Lengths(Embeddings):
    """Vectors that say how long a text is and which node and process made them; `folder` keeps what happened."""

    def __init__(self, folder: Path, deadly: str = "") -> None:
        self.folder, self.deadly = folder, deadly

    def embed_documents(self, texts):
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{node}-{os.getpid()}").touch()
        if self.deadly in texts:
            dead = self.folder / "dead"
            if not dead.exists():
                dead.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if "wrong" in texts:
            raise ValueError("this text is wrong")
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text):
        return [float(len(text)), 0.0]


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynprag\[ray\]'"):
        RayEmbeddings(MiniLMEmbeddings())


def test_the_command_needs_an_address_and_a_folder(tmp_path):
    for wrong in ([str(tmp_path), "--ray-cpus", "2"], ["--list", "--ray", "auto"]):
        with pytest.raises(ConfigurationError, match="--ray needs FOLDER"):
            run("index", *wrong)


@pytest.mark.ray
class TestOnACluster:
    @pytest.mark.parametrize("wrong", [{"num_cpus": 0}, {"num_gpus": -1}, {"batch_size": 0}])
    def test_impossible_numbers_are_refused(self, wrong, tmp_path):
        with pytest.raises(ConfigurationError, match="at least 1 text"):
            RayEmbeddings(Lengths(tmp_path), **wrong)

    def test_a_task_that_no_node_has_room_for_is_refused(self, cluster, tmp_path):
        embeddings = RayEmbeddings(Lengths(tmp_path), cluster.address, num_cpus=8)
        with pytest.raises(ConfigurationError, match="no node of the Ray cluster has the 8 CPUs"), embeddings:
            pass
        with RayEmbeddings(Lengths(tmp_path), cluster.address) as possible:  # the refused one left no connection
            assert possible.embed_documents(["a"]) == [[1.0, 1.0]]

    def test_a_copy_has_a_connection_of_its_own_and_threads_share_one(self, cluster, tmp_path):
        embeddings = RayEmbeddings(Lengths(tmp_path), cluster.address, num_cpus=0.5, batch_size=3)
        with embeddings, ThreadPoolExecutor(4) as pool:
            found = list(pool.map(embeddings.embed_documents, [["a" * i] for i in range(8)]))
            again = copy.deepcopy(embeddings)
        assert [int(vectors[0][0]) for vectors in found] == list(range(8))
        assert again.underlying_embeddings.folder == tmp_path
        with again:
            assert again.embed_documents(["abc"]) == [[3.0, 1.0]]

    async def test_it_can_be_awaited_without_a_block(self, cluster, tmp_path):
        embeddings = RayEmbeddings(Lengths(tmp_path), cluster.address)
        both = await asyncio.gather(embeddings.aembed_documents(["a"]), embeddings.aembed_documents(["ab"]))
        assert both == [[[1.0, 1.0]], [[2.0, 1.0]]]
        embeddings.__exit__()

    def test_vectors_come_in_order_from_both_nodes(self, cluster, tmp_path):
        texts = ["x" * i for i in range(1, 60)]
        with RayEmbeddings(Lengths(tmp_path), cluster.address, batch_size=4) as embeddings:
            assert [int(v[0]) for v in embeddings.embed_documents(texts)] == list(range(1, 60))
            assert embeddings.embed_documents([]) == []
            assert embeddings.embed_query("abc") == [3.0, 0.0]
        assert len({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == 2

    def test_a_batch_whose_worker_died_is_computed_again(self, cluster, tmp_path):
        texts = ["one", "deadly", "three"]
        with RayEmbeddings(Lengths(tmp_path, deadly="deadly"), cluster.address, batch_size=1) as embeddings:
            assert [v[0] for v in embeddings.embed_documents(texts)] == [3.0, 6.0, 5.0]
        assert (tmp_path / "dead").exists()

    def test_a_text_that_cannot_be_embedded_is_an_error_that_names_the_cause(self, cluster, tmp_path):
        with RayEmbeddings(Lengths(tmp_path), cluster.address, batch_size=1) as embeddings:
            with pytest.raises(ServerError, match="could not embed 2 texts: .*this text is wrong"):
                embeddings.embed_documents(["right", "wrong"])
            assert embeddings.embed_documents(["again"]) == [[5.0, 1.0]]

    def test_an_index_that_a_cluster_embedded_is_searched_and_extended_without_it(self, cluster, tmp_path, caplog):
        notes = tmp_path / "notes"
        notes.mkdir()
        for i, town in enumerate(("Vold", "Pell", "Quillon")):
            (notes / f"{i}.txt").write_text(f"The ferry of {town} was built in {1901 + i}.", "utf-8")
        with RayEmbeddings(MiniLMEmbeddings(), cluster.address, batch_size=2) as embeddings:
            assert LocalIndex(tmp_path / "index", embeddings=embeddings).ingest(notes, progress=False).embedded == 3
            vectors = embeddings.embed_documents(["The ferry of Vold."])
        np.testing.assert_allclose(vectors, MiniLMEmbeddings().embed_documents(["The ferry of Vold."]), atol=1e-6)
        again = LocalIndex(tmp_path / "index")
        assert again.ingest(notes, progress=False).embedded == 0
        assert "Pell" in again.as_retriever("dense", k=1).invoke("When was Pell's ferry built?")[0].page_content
        assert not caplog.records

    def test_the_command_embeds_on_a_cluster(self, cluster, tmp_path):
        (tmp_path / "a.txt").write_text("The bridge has 41 arches.", "utf-8")
        into = str(tmp_path / "index")
        told = run("index", str(tmp_path / "a.txt"), "--index", into, "--ray", cluster.address)
        assert "1 files added" in told.output

    def test_the_command_s_output_is_json_alone(self, cluster, tmp_path):
        (tmp_path / "a.txt").write_text("The bridge has 41 arches.", "utf-8")
        options = ("--index", tmp_path / "index", "--ray", cluster.address, "--json")
        told = command_output("index", tmp_path / "a.txt", *options)
        assert json.loads(told.stdout)["embedded"] == 1

    def test_a_node_that_is_lost_costs_nothing_but_time(self, cluster, tmp_path):
        lost = cluster.add_node(**NODE)
        with RayEmbeddings(Lengths(tmp_path), cluster.address, batch_size=1) as embeddings:
            embeddings.embed_documents(["start"])
            cluster.remove_node(lost, allow_graceful=False)
            assert [v[0] for v in embeddings.embed_documents(["x" * i for i in range(20)])] == list(range(20))
