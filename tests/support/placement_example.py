"""A made-up part `placement` of report.json: a chip that holds the network, one that would, one that does not.

Every number differs from its neighbours, so that a swapped cell shows.
"""

from collections.abc import Sequence
from typing import Any


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "p50": 0.98 * mean, "p95": 1.21 * mean, "p99": 1.35 * mean, "max": 1.43 * mean}


def occupied(layers: Sequence[str], scale: int, axons: int | None) -> dict[str, Any]:
    rows = [
        {
            "layer": name,
            "shape": [64 - index],
            "parts": [1 + index],
            "cores": scale * (1 + index),
            "first_core": index,
            "weight_bits": 8,
            "neurons": [scale * (211 - index), 1024 * scale],
            "synapse_words": [scale * (3001 + index), 16384],
            "axons_in": [101 + index, axons],
            "axons_out": [51 + index, axons],
            "words_once": 900 + index,
            "replicated_words": 700 * index - 400,
            "binding": "synapse_words" if index else "neurons",
            "used": 0.206 + index / 100,
        }
        for index, name in enumerate(layers)
    ]
    shares = {"neurons": [0.111, 0.206], "synapse_words": [0.183, 0.231]}
    return {
        "cores": sum(row["cores"] for row in rows),
        "chips": scale,
        "tiles": None if axons is None else 3,
        "utilisation": shares if axons is None else shares | {"axons_in": [0.022, 0.025], "axons_out": [0.012, 0.013]},
        "binding": rows[-1]["binding"],
        "binding_layer": rows[-1]["layer"],
        "binding_share": rows[-1]["used"],
        "layers": rows,
    }


def price(costs: str, scale: float, times: Sequence[str], refused: str | None) -> dict[str, Any]:
    parts = {
        name: scale * joule
        for name, joule in (("synapses", 2e-5), ("neurons", 3e-6), ("messages", 4e-7), ("hops", 5e-9))
    }
    static = {name: spread(scale * (2e-4 + 1e-5 * index)) for index, name in enumerate(times)}
    return {
        "costs": costs,
        "title": f"title of {costs}",
        "dynamic": spread(sum(parts.values())),
        "parts": {name: spread(joule) for name, joule in parts.items()},
        "layers": {"input": 1e-9},
        "unpriced": ["barrier synchronisation"] if refused else [],
        "static": static,
        "total": {} if refused else {name: spread(values["mean"] + 3e-5) for name, values in static.items()},
        "no_total": refused,
    }


def placement_example(layers: Sequence[str] = ("spike1", "spike2", "dense3")) -> dict[str, Any]:
    times = ("davies2018", "sanafe")
    refused = "cost set 'loihi1: davies2018' does not price barrier synchronisation, so there is no total"
    prices = [price("davies2018", 1.0, times, refused), price("sanafe", 1.37, times, None)]
    events = {"operations": 60123.5, "operations_convolution": 54321.25, "active": 394.5, "idle": 1354.75}
    events |= {"messages_in": 1994.5, "messages_out": 1994.5, "off_chip": 3.25}
    return {
        "images": 64,
        "accuracy": 0.96875,
        "compiled_for": "loihi2",
        "chips": [
            {
                "profile": "loihi2",
                "chip": "Intel Loihi 2",
                "fits": True,
                "reasons": [],
                "occupied": occupied(layers, 2, None),
                "work": {
                    "events": events,
                    "prices": [],
                    "dynamic": None,
                    "times": [],
                    "power": [0.464, 4.52],
                    "missing": [
                        "loihi2: no energy per event is public ([costs]), so events are counted and not priced"
                    ],
                },
            },
            {
                "profile": "loihi1",
                "chip": "Intel Loihi 1",
                "fits": False,
                "reasons": ["layer 'input': 8-bit graded messages exceed 1 (loihi1: numerics.message_bits_max)"],
                "occupied": occupied(layers, 1, 4096),
                "work": {
                    "events": events | {"messages_out": 477.5, "hops_east_west": 12.5, "hops_north_south": 7.75},
                    "prices": prices,
                    "dynamic": [one["dynamic"] for one in prices],
                    "times": [
                        {
                            "times": name,
                            "title": f"title of {name}",
                            "sample": spread(0.0021 + index / 10000),
                            "barrier": 9.04e-7 + index / 1e6,
                            "busiest_core": 2 + index,
                            "busiest_layer": layers[-1],
                            "busiest_share": 0.926 - index / 10,
                        }
                        for index, name in enumerate(times)
                    ],
                    "power": [0.104, 0.104],
                    "missing": [],
                },
            },
            {
                "profile": "speck",
                "chip": "SynSense Speck 2f",
                "fits": False,
                "reasons": ["layer 'spike3': 327680 words of kernel memory, over 65536 of the largest core"],
                "occupied": None,
                "work": None,
            },
        ],
        "operations": {
            "accumulates": spread(105301.5),
            "multiply_accumulates": spread(9288.5),
            "first_layer": 9288.5,
            "ann_dense": 158784,
            "ann_zero_skipping": spread(136164.5),
            "no_ann": None,
            "prices": [
                {
                    "arithmetic": f"cmos45: {name}",
                    "title": f"title of {name}",
                    "spiking": spread(scale * 1.37e-6),
                    "ann_dense": scale * 7.3e-7,
                    "ann_zero_skipping": spread(scale * 6.29e-7),
                    "ratio_dense": spread(1.876 + scale / 10),
                    "ratio_zero_skipping": spread(2.178 - scale / 10),
                }
                for name, scale in (("fp32", 1.0), ("int8", 0.04))
            ],
        },
        "outside": ["host and input/output", "weight loading"],
    }
