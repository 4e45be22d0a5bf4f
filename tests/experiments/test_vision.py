"""Experiments on images reach what they claim, run as a user runs them."""

import json
import os

import pytest

from tests.experiments.test_first import run

needs_data = pytest.mark.skipif("PURENETS_DATA" not in os.environ, reason="PURENETS_DATA is not set")


@needs_data
@pytest.mark.covers("M39", "M40")
def test_a_convolutional_network_reads_98_percent_of_held_out_digits(tmp_path):
    report = run("mnist_cnn", tmp_path, "--epochs", "6")
    assert report["numbers"]["training digits"] == 8000
    assert report["numbers"]["held-out digits"] == 2000
    assert report["numbers"]["test accuracy"] >= 0.98
    assert report["verdict"] == "holds"


@needs_data
def test_fewer_digits_than_claimed_decide_nothing(tmp_path):
    report = run("mnist_cnn", tmp_path, "--epochs", "1", "--examples", "256", "--width", "2")
    assert report["verdict"] == "inconclusive"


@needs_data
@pytest.mark.covers("M48")
@pytest.mark.parametrize(
    "flags", [["--width", "4"], ["--scale", "full", "--width", "4"]], ids=["small", "full"]
)
def test_both_scales_on_pictures_run_and_a_part_of_them_decides_nothing(tmp_path, flags):
    sizes = ["--epochs", "2", "--examples", "512", "--test-examples", "256", "--batch-size", "64"]
    report = run("cifar_resnet", tmp_path, *flags, *sizes)
    assert report["numbers"]["training pictures"] == 512
    assert report["verdict"] == "inconclusive"
    losses = [json.loads(line)["loss"] for line in (tmp_path / "cifar_resnet" / "metrics.jsonl").open()]
    assert losses[1] < losses[0]
