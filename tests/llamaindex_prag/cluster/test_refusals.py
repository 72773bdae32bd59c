"""What cannot be trained on a cluster is refused before anything is connected to, and Ray's extra is named."""

import sys

import pytest
from typer.testing import CliRunner

from llamaindex_prag.cluster.ray_parametrizer import RayParametrizer
from llamaindex_prag.parametric_model import ParametricModel
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError, MissingExtraError


def test_without_ray_the_extra_is_named(lm, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynprag\[ray\]'"):
        RayParametrizer(ParametricModel(lm, store))


def test_options_of_a_cluster_need_one(tmp_path):
    result = CliRunner().invoke(build_app(), ["parametrize", str(tmp_path), "--ray-cpus", "2"])
    assert isinstance(result.exception, ConfigurationError)
    assert "--ray-model need --ray ADDRESS" in str(result.exception)


@pytest.mark.ray
class TestWithRay:
    def test_a_model_in_memory_is_refused(self, lm, store):
        with pytest.raises(ConfigurationError, match="created in memory"):
            RayParametrizer(ParametricModel(lm, store))

    @pytest.mark.parametrize("options", [{"workers": 0}, {"num_cpus": 0}, {"num_gpus": -1}])
    def test_impossible_numbers_are_refused(self, lm, store, options):
        with pytest.raises(ConfigurationError, match="at least 1 worker"):
            RayParametrizer(ParametricModel(lm, store), **options)
