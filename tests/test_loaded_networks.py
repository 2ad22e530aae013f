"""What the tests share of the shipped models."""

import shutil

import pytest
import torch

from xas_agent.models import card as cards
from xas_agent.models.engines import torchscript
from xas_agent.models.runtime import Model

CPU = torch.device("cpu")


def test_a_shipped_network_is_loaded_once_and_any_other_from_its_file(tmp_path):
    shipped, copied = cards.find("cu-k"), shutil.copytree(cards.find("cu-k"), tmp_path / "cu-k")
    assert torchscript._load(shipped, CPU) is torchscript._load(shipped, CPU)
    assert torchscript._load(copied, CPU) is not torchscript._load(copied, CPU)
    assert Model(shipped, "cpu").engine is not Model(shipped, "cpu").engine


@pytest.mark.usefixtures("networks_of_files")
def test_a_test_may_load_from_files():
    shipped = cards.find("cu-k")
    assert torchscript._load(shipped, CPU) is not torchscript._load(shipped, CPU)
