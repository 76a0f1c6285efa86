"""Compare `evaluation=autoattack_fast` with the standard evaluation, for each image of every run in a store.

    python benchmarks/fast_search.py multirun             # --bf16 uses bf16 even if it is slow on the device

For each run with a result of standard AutoAttack, this process repeats the evaluation with the fast search.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from evaluation import Silent, loaded
from measuring import hardware, print_table

from bnft.common.devices import choose
from bnft.common.files import read_tensors
from bnft.evaluation import autoattack
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import STANDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--bf16", action="store_true", help="search in bf16 even if it is slow on the device")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.bf16:
        autoattack.has_fast_bf16 = lambda _: True  # type: ignore[attr-defined, assignment]
    settled = choose("auto", "fp32", options.threads)
    settled.settle()
    rows, images, errors, flips = [], 0, [0, 0], [0, 0]
    for path in sorted(options.store.glob("*/evaluation/*/result.json")):
        result, run = json.loads(path.read_text()), path.parents[2]
        how = result["evaluation"]
        if how.get("version") != "standard" or how.get("search"):
            continue
        model, data, config = loaded(run)
        config = replace(config, **{key: how[key] for key in ("norm", "eps", "n_images", "batch_size", "seed")})
        began = time.monotonic()
        moved = data.to(settled.device)
        outcomes, _ = evaluate(settled.place(model).eval(), *moved.test, replace(config, search="fast"), Silent())
        seconds = time.monotonic() - began
        standard = read_tensors(path.parent / "outcomes.safetensors")[0]["fallen_at"] != STANDS
        fast = outcomes.fallen_at != STANDS
        more, fewer = int((fast & ~standard).sum()), int((standard & ~fast).sum())
        rows.append([run.name, len(fast), int(standard.sum()), int(fast.sum()), more, fewer, f"{seconds:.1f}"])
        images += len(fast)
        errors = [errors[0] + int(standard.sum()), errors[1] + int(fast.sum())]
        flips = [flips[0] + more, flips[1] + fewer]
    rows.append(["all", images, *errors, *flips, ""])
    print("\n".join(hardware()), end="\n\n")
    print_table(["run", "images", "errors, standard", "errors, fast", "only fast", "only standard", "seconds"], rows)
    print(f"Robust error differs by {100 * (errors[1] - errors[0]) / images:+.3f} points over {images} images.")


if __name__ == "__main__":
    main()
