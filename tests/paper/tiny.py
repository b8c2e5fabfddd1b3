"""Settings of a few seconds that reach every table and question."""

from mrviz.paper.settings import QUICK

TINY = {
    "kernels": {
        **QUICK["kernels"],
        "families": {
            "dnn": {"depths": [2, 3, 4], "width": 16},
            "cnn": {"depths": [1, 2, 3], "width": 2},
        },
        "input_sizes": {"digits": {"dnn": 6, "cnn": 4}},
        "per_class": 2,
    },
    "depth": {
        **QUICK["depth"],
        "sweeps": [
            {"family": "dnn", "width": 8, "input_size": size, "seeds": [1, 2, 3]}
            for size in (9, 12)
        ],
        "depths": [1, 2, 3],
        "image_size": 6,
        "n": 10,
        "n_test": 20,
        "steps": 2,
        "per_class": 1,
        "draws": 1,
    },
    "extractor": {
        **QUICK["extractor"],
        "blocks": 4,
        "trained_on": "digits",
        "heads": {"dnn": 8},
        "depths": [1, 2, 3],
        "target": "mnist-5k",
        "n": 10,
        "n_test": 10,
        "steps": 1,
    },
    "indicators": {
        **QUICK["indicators"],
        "grids": [
            {
                "source": "dnn",
                "depth": 2,
                "width": 8,
                "input_size": 12,
                "trained_on": [None],
                "target": "digits",
                "seed": [1, 2, 3],
            },
            {
                "source": "fcn",
                "depth": 1,
                "width": 2,
                "input_size": 64,
                "trained_on": [None],
                "target": "ucr:GunPoint",
                "seed": [1],
            },
        ],
        "shared": {**QUICK["indicators"]["shared"], "n": 10, "n_test": 30, "steps": 3},
        "series_shared": {**QUICK["indicators"]["series_shared"], "n": 6, "steps": 3},
    },
    "assumptions": {
        **QUICK["assumptions"],
        "sources": [
            {"family": "dnn", "depth": 2, "width": 4, "trained_on": "digits"},
            {"family": "dnn", "depth": 2, "width": 4, "trained_on": None},
        ],
        "input_size": 4,
        "epochs": 1,
        "samples": 2,
        "steps": 2,
    },
    "width": {
        **QUICK["width"],
        "families": {"dnn": [4, 16, 64]},
        "seeds": [1, 2, 3],
        "input_size": 9,
        "image_size": 6,
    },
    "bound": {
        **QUICK["bound"],
        "pairs": [
            {
                "family": "dnn",
                "options": {"depth": 2, "width": 16, "input_size": 10, "epochs": 1},
                "trained_on": "digits",
                "target": "mnist-5k",
                "programs": ["linear", "border", "linear_border"],
                "image_size": 6,
            },
        ],
        "n": 10,
        "n_test": 30,
        "steps": 2,
    },
}
