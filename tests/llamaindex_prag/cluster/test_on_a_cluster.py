"""Training on a real Ray cluster of two nodes on this machine: equal to one machine, whatever dies meanwhile.

`DYNPRAG_RAY_KILLS` sets how many runs lose a node at a random moment (default 3).
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.cluster.ray_parametrizer import RayParametrizer, parametrize_with_ray
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone import ray_cluster
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.cluster.corpus import passages
from tests.llamaindex_prag.cluster.faulty import DEADLY, RAISING, FaultyWorker
from tests.ray_clusters import NODE, command_output, two_nodes
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.ray

KILLS = int(os.environ.get("DYNPRAG_RAY_KILLS", "3"))


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


@pytest.fixture
def joined(cluster):
    """Connect this process for several calls, so that each one is quick."""
    import ray

    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def loaded(model_folder):
    return CausalLM.from_pretrained(model_folder, device="cpu")


@pytest.fixture
def told(model_folder):
    """Return the file in which a `FaultyWorker` says what it trains."""
    path = model_folder.parent / "told.txt"
    path.unlink(missing_ok=True)
    return path


@contextmanager
def opened(folder, lm, recipe="prag"):
    """Open a store that counts how often each text is stored."""
    with LMDBStore(folder, model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        store_one, store.stored = store.put, Counter()

        def put(key, *args, **options):
            store_one(key, *args, **options)
            store.stored[key.text] += 1

        store.put = put
        yield ParametricModel(lm, store, recipe=recipe)


def contents(model):
    """Return the bytes, record and owners of each adapter, without the times."""
    store = model.store
    return {
        key.text: (store.get(key).buffer.tobytes(), {**store.record(key), "created": ""}, store.owners(key.text))
        for key in store.keys()  # noqa: SIM118 - not a mapping
    }


RECIPES = {
    "prag": get_recipe("prag"),
    "prag by the model": get_recipe("prag", augmentation="model", questions=1),
    "distill": get_recipe("distill", epochs=2),
    "alora": get_recipe("alora", epochs=2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_adapters_records_and_owners_equal_those_of_one_machine_bit_for_bit(joined, loaded, tmp_path, recipe):
    corpus = passages(4 if recipe.augmentation == "model" else 10)
    with opened(tmp_path / "one", loaded, recipe) as one, opened(tmp_path / "two", loaded, recipe) as two:
        Parametrizer(one, documents_at_once=2).parametrize(corpus, progress=False)
        seen = []
        options = {"documents_at_once": 2, "progress": False}
        report = parametrize_with_ray(two, corpus, watch=seen.append, **options)
        assert (report.trained, report.known, report.skipped) == (len(corpus), 0, 0)
        assert contents(two) == contents(one)
        assert two.store.stats().side_entries == one.store.stats().side_entries
        assert seen[-1].made == len(corpus)
        assert seen[-1].part == pytest.approx(1)
        again = parametrize_with_ray(two, corpus, **options)
        assert (again.trained, again.known) == (0, len(corpus))
        assert set(two.store.stored.values()) == {1}


def test_where_all_passages_have_adapters_no_cluster_is_needed(loaded, tmp_path):
    with opened(tmp_path / "store", loaded) as model:
        Parametrizer(model).parametrize(passages(2), progress=False)
        report = parametrize_with_ray(model, passages(2), "127.0.0.1:1")
        assert (report.trained, report.known) == (0, 2)


def test_a_killed_worker_s_passages_are_trained_by_another_one(joined, loaded, tmp_path, told, monkeypatch):
    monkeypatch.setattr("llamaindex_prag.cluster.pool.Worker", FaultyWorker)
    corpus, killed = passages(40), []

    def kill(status):
        if status.made >= 4 and not killed:
            killed.append(int(told.read_text("utf-8").splitlines()[-1].partition("\t")[0]))
            os.kill(killed[0], signal.SIGKILL)

    with opened(tmp_path / "one", loaded) as one, opened(tmp_path / "two", loaded) as two:
        Parametrizer(one, documents_at_once=4).parametrize(corpus, progress=False)
        report = parametrize_with_ray(two, corpus, documents_at_once=4, progress=False, watch=kill)
        assert killed
        assert report.trained == 40
        assert contents(two) == contents(one)
        assert set(two.store.stored.values()) == {1}


def test_passages_that_kill_or_fail_their_worker_are_reported_by_name_and_the_others_are_trained(
    joined, loaded, tmp_path, told, monkeypatch, caplog
):
    monkeypatch.setattr("llamaindex_prag.cluster.pool.Worker", FaultyWorker)
    monkeypatch.setattr("llamaindex_prag.cluster.pool._DEATHS", 2)
    corpus = [*passages(6), Passage(DEADLY, document="deadly.md"), Passage(RAISING, document="raising.md")]
    with opened(tmp_path / "store", loaded) as model:
        report = parametrize_with_ray(model, corpus, documents_at_once=3, progress=False)
        assert (report.trained, report.skipped) == (6, 2)
        assert "2 workers in a row died" in report.notes[text_hash(DEADLY)][0]
        assert "this passage raises" in report.notes[text_hash(RAISING)][0]
        for name in ("deadly.md", "raising.md"):
            assert f"a passage of {name} has no adapter" in caplog.text
        assert set(model.store.stored.values()) == {1}


def test_nothing_is_lost_or_stored_twice_if_nodes_die_at_random_moments(joined, loaded, tmp_path, capsys):
    corpus, chance, lasted = passages(48), random.Random(KILLS), 5.0
    with opened(tmp_path / "one", loaded) as one:
        Parametrizer(one, documents_at_once=4).parametrize(corpus, progress=False)
        expected = contents(one)
    for run in range(KILLS):
        node = joined.add_node(**NODE)
        after, begun, at = chance.uniform(0, lasted), threading.Event(), []

        def watch(status, begun=begun, at=at):
            at.append(status.made)
            begun.set()

        def kill(node=node, after=after, begun=begun):
            begun.wait()
            time.sleep(after)
            joined.remove_node(node, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        with opened(tmp_path / f"run {run}", loaded) as model:
            started = time.perf_counter()
            report = parametrize_with_ray(model, corpus, documents_at_once=4, progress=False, watch=watch)
            lasted = max(time.perf_counter() - started - 5, 1.0)
            killer.join()
            with capsys.disabled():
                print(f"run {run}: a node killed {after:.1f} s after the start; {report}", flush=True)
            assert (report.trained, report.skipped) == (len(corpus), 0)
            assert contents(model) == expected
            assert set(model.store.stored.values()) == {1}


def test_a_killed_driver_s_job_is_continued_by_the_next_one(cluster, loaded, model_folder, tmp_path):
    arguments = [cluster.address, str(model_folder), str(tmp_path / "store"), "60"]
    command = [sys.executable, "-m", "tests.llamaindex_prag.cluster.driver", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        for line in driver.stdout:
            if line.strip().isdigit() and int(line) >= 10:  # Ray itself tells of nodes that died before
                break
        driver.kill()
    with opened(tmp_path / "store", loaded) as model:
        before = {key: model.store.record(key)["created"] for key in model.store.keys()}  # noqa: SIM118
        assert 10 <= len(before) < 60
        report = parametrize_with_ray(model, passages(60), cluster.address, documents_at_once=2, progress=False)
        assert (report.trained, report.known) == (60 - len(before), len(before))
        assert set(model.store.stored.values()) == {1}
        assert {key: model.store.record(key)["created"] for key in before} == before
        assert len(model.store) == 60
        assert all(model.store.owners(text_hash(p.text)) == [p.document] for p in passages(60))


def test_a_node_with_another_model_in_the_folder_is_refused_before_training(joined, loaded, tmp_path):
    other = tiny_llama(initializer_range=0.1)
    other.save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    with opened(tmp_path / "store", loaded) as model:
        with pytest.raises(ConfigurationError, match=r"the worker on the node \w{8} \(.*its model has the fingerprint"):
            parametrize_with_ray(model, passages(8), worker_model=str(tmp_path / "other"), progress=False)
        with pytest.raises(
            ConfigurationError, match=r"on the node \w{8}.*could not be loaded: there is no model folder"
        ):
            parametrize_with_ray(model, passages(8), worker_model=str(tmp_path / "none"), progress=False)
        assert len(model.store) == 0


def test_a_node_with_other_versions_is_refused_before_training(joined, loaded, tmp_path, monkeypatch):
    own = {"Python": "3.10.1", "torch": "1.0"}
    monkeypatch.setattr("llamaindex_prag.cluster.ray_parametrizer.versions", lambda: own)
    with opened(tmp_path / "store", loaded) as model:
        with pytest.raises(
            ConfigurationError, match=rf"it has torch {torch.__version__.replace('+', '.')}, the driver 1\.0"
        ):
            parametrize_with_ray(model, passages(2), progress=False)
        assert len(model.store) == 0


def test_resources_that_no_node_has_are_refused_with_what_there_is(joined, loaded, tmp_path):
    with opened(tmp_path / "store", loaded) as model, pytest.raises(ConfigurationError, match="1 CPUs, 0 GPUs"):
        parametrize_with_ray(model, passages(2), num_gpus=1, progress=False)


def test_workers_that_get_no_resources_in_time_are_given_up(joined, loaded, tmp_path):
    import ray

    @ray.remote(num_cpus=1)
    class Busy:
        def here(self):
            return True

    busy = [Busy.remote() for _ in range(2)]
    ray.get([actor.here.remote() for actor in busy])
    with opened(tmp_path / "store", loaded) as model, pytest.raises(ConfigurationError, match="was ready within 2 s"):
        parametrize_with_ray(model, passages(2), start_timeout=2, progress=False)
    for actor in busy:
        ray.kill(actor)


def test_an_address_that_nothing_answers_at_is_refused_in_bounded_time(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_TRIAL_SECONDS", 4.0)
    started = time.perf_counter()
    with (
        opened(tmp_path / "store", loaded) as model,
        pytest.raises(ConfigurationError, match="nothing answered within 4 s.*RAY_AUTH_MODE=token"),
    ):
        parametrize_with_ray(model, passages(2), "127.0.0.1:1", progress=False)
    assert time.perf_counter() - started < 60


def test_an_estimate_is_shared_by_the_workers(joined, loaded, tmp_path):
    with opened(tmp_path / "store", loaded) as model:
        with RayParametrizer(model, documents_at_once=2) as parametrizer:
            found = parametrizer.estimate(passages(8))
        one = Parametrizer(model, documents_at_once=2).estimate(passages(8))
    assert found.documents == 8
    assert found.seconds == pytest.approx(one.seconds / 2)  # the same machine, whose pace is cached
    assert np.isclose(sum(found.by_stage.values()), found.seconds)


def test_the_command_trains_on_a_cluster(cluster, run, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for i, passage in enumerate(passages(3)):
        (folder / f"{i}.txt").write_text(passage.text, "utf-8")
    assert "3 trained, 0 known" in run("parametrize", folder, "--ray", cluster.address, "--ray-workers", "1")
    assert "0 trained, 3 known" in run("parametrize", folder)


def test_the_command_s_output_is_json_alone(cluster, model_folder, tmp_path):
    (tmp_path / "a.txt").write_text(passages(1)[0].text, "utf-8")
    options = ("--store", tmp_path / "store", "--model", model_folder, "--recipe", "prag", "--json")
    told = command_output("parametrize", tmp_path / "a.txt", "--ray", cluster.address, *options)
    assert json.loads(told.stdout)["trained"] == 1


def test_what_ray_tells_of_a_node_that_dies_does_not_come_between_the_results(cluster):
    program = (
        "import sys\n"
        "from rag_backbone.console import stdout_to_stderr\n"
        "from rag_backbone.ray_cluster import connected\n"
        "with stdout_to_stderr(), connected(sys.argv[1]):\n"
        "    print('connected', flush=True)\n"
        "    sys.stdin.readline()\n"
        "print('result')\n"
    )
    node = cluster.add_node(**NODE)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program, cluster.address], **pipes) as process:
        guard = threading.Timer(120, process.kill)
        guard.daemon = True
        guard.start()
        assert process.stderr.readline() == "connected\n"
        cluster.remove_node(node, allow_graceful=False)
        assert any("Raylet is terminated" in line or "marked dead" in line for line in process.stderr)
        told, _ = process.communicate("\n")
        guard.cancel()
    assert told == "result\n"
