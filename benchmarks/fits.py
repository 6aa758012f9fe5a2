"""How far apart are two fits of one setting, and is another setting better by more than that?

    python benchmarks/fits.py cifar100 data/checkpoints/cifar100/laptop/NAME.safetensors

Gates of `best` are fitted from several seeds: which retained images are kept, and which of them
each step sees. A seed is a row; classes are those that a choice looks at (`choosing.looked_at`), on
the validation split.
"""

import dataclasses
import sys
import time

from one_checkpoint import config_of, opened, record

from softprune import artifacts, choosing, ladder, requests

SEEDS = (0, 1, 2)
POOL = 20_000


def settings(chosen: ladder.FitOptions) -> dict[str, ladder.FitOptions]:
    """What is compared, by the name of a row: the choice, and where it has shifts its gates (or
    directions) alone and its shifts alone, and where it has blends the same without; where it has
    no shifts, more retained images to draw from and twice the steps."""
    if chosen.shift:
        alone = "directions-alone" if chosen.direction else "gates-alone"
        other = {alone: {"shift": 0.0}, "shifts-alone": {"rate": 0.0, "direction": 0.0}}
        if chosen.blend:
            other["without-blends"] = {"blend": 0.0}
    else:
        other = {"more-images": {"pool": POOL}, "more-steps": {"steps": 2 * chosen.steps}}
    return {"chosen": chosen} | {k: dataclasses.replace(chosen, **v) for k, v in other.items()}


def rows_of(bench: requests.Bench, log=print) -> tuple[list[dict], dict]:
    """Rows of every setting and seed, and each setting's options."""
    chosen = ladder.options("best", bench.images.name, config_of(bench).profile)
    compared = settings(chosen)
    rows, fitter = [], None
    for seed in SEEDS:
        for name, wanted in compared.items():
            options = dataclasses.replace(wanted, seed=seed)
            fitter = (fitter.turned(options) if fitter
                      else ladder.Fitter(bench.model, bench.images, options))
            made = choosing.judge(fitter, bench, choosing.looked_at(bench), whole=True)
            told = {"forgotten-mean": made["forgotten-mean"], "inside-mean": made["inside"],
                    "change-mean": made["change-mean"], "change-worst": made["change-worst"]}
            rows += [artifacts.row(name, metric, 100 * value, "points", split="validation",
                                   n=made["n"], gate=f"seed-{seed}")
                     for metric, value in told.items()]
            rows.append(artifacts.row(name, "time-prepare", made["seconds"], "s",
                                      gate=f"seed-{seed}"))
            log(f"seed {seed} {name:15} class {100 * made['forgotten-mean']:5.2f} %  inside "
                f"{100 * made['inside']:5.2f} %  others {100 * made['change-mean']:+.2f}")
    return rows, {name: options.told() for name, options in compared.items()}


def main(dataset: str, checkpoint: str) -> None:
    """Fit, measure, and write the record."""
    began = time.perf_counter()
    bench = opened(dataset, checkpoint)
    rows, told = rows_of(bench, lambda text: print(text, flush=True))
    record("fits", bench, rows, began, {"settings": told})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected: python benchmarks/fits.py DATASET CHECKPOINT.safetensors")
    main(*sys.argv[1:])
