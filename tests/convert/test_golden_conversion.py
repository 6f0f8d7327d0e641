"""The threshold search equals the authors' code, and so do the logits right after conversion."""

import golden_rsc as rsc
import torch

from hardspike.convert.ann_to_snn import convert_network
from hardspike.convert.thresholds import batch_statistics, find_thresholds

FILE = "rsc_conv2_if_T4_calib"
CALIBRATION = rsc.arrays(FILE)
BATCHES = list(CALIBRATION["in_calib_batches"])
IMAGES = rsc.arrays("rsc_conv2_if_T4")["in_x"]


def test_thresholds_layer_after_layer() -> None:
    net = rsc.network()
    found = find_thresholds(net, BATCHES, percent=99.7, steps=20)
    rsc.assert_golden(torch.tensor(list(found.values()), dtype=torch.float64), "calib_thresholds", FILE)
    assert net.time_steps == 4


def test_conversion_scales_thresholds_and_resets_statistics() -> None:
    converted = convert_network(rsc.network(), BATCHES, time_steps=4, calibration_steps=20, scale=0.3)
    thresholds = torch.stack([neuron.threshold for neuron in converted.neurons().values()])
    rsc.assert_golden(thresholds, "calib_vth_after_scaling", FILE)
    with torch.no_grad():
        rsc.assert_golden(converted.eval()(IMAGES), "calib_logits_eval_reset_stats", FILE)
    assert all(neuron.threshold.requires_grad for neuron in converted.neurons().values())


def test_logits_with_batch_statistics() -> None:
    converted = convert_network(rsc.network(), BATCHES, time_steps=4, calibration_steps=20, scale=0.3)
    with torch.no_grad(), batch_statistics(converted):
        rsc.assert_golden(converted.eval()(IMAGES), "calib_logits_train_mode", FILE)
