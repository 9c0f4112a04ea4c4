"""Write what the benchmarks measured into README.md, from the lines they printed.

    python benchmarks/train_mnist.py --data mnist.npz | tee mnist.log     and so on, then
    python benchmarks/tables.py mnist.log distill.log belt.log clean.log pipeline.log
    python benchmarks/tables.py quantize.log qat.log leak.log
    python benchmarks/tables.py pipeline.log memory.log startup.log tracker.log

Each file's last line is one benchmark's JSON; what it is follows from its keys. Each call writes one of README's
tables. Prints one JSON line last.
"""

import json
import sys
from pathlib import Path
from typing import Any

from readme import README, put

Row = tuple[str, str, str]
EDGE: tuple[Row, ...] = (
    (
        "the whole agent against a bare loop, 720p H.264, 20 objects in view",
        "frame_age_p95_ms",
        (
            "{ratio:.2f} of its speed ({fps:.0f} of {bare_fps:.0f} fps), {overhead_ms:.2f} ms of processor a frame; "
            "a live 30 fps camera's frames are {frame_age_p95_ms:.0f} ms old when their events are ready (p95)"
        ),
    ),
    ("memory of the agent after 10,000 frames", "rss_mb", "{rss_mb:.0f} MB, {rss_growth_mb:.1f} more than after 1,000"),
    (
        "from the start of the process",
        "first_inference_s",
        (
            "help in {help_s:.2f} s, first inference in {first_inference_s:.2f} s, first event on the wire in "
            "{first_event_s:.2f} s; the install weighs {install_mb:.0f} MB in {packages} packages"
        ),
    ),
    (
        "following 5, 20, 100 objects, against ByteTrack of `trackers`",
        "peer_idf1",
        "IDF1 {idf1:.3f} against {peer_idf1:.3f}, at least {speedup:.1f} times as fast",
    ),
)
CONVERSION: tuple[Row, ...] = (
    (
        "int8 against float32: digits, EfficientNet-Lite0, belt",
        "classifier_drop_pt",
        (
            "at most {classifier_drop_pt:.2f} points of accuracy and {detector_drop_pt:.2f} of AP50-95 lost; "
            "at most {size_ratio:.0%} of the size, at least {speedup:.1f} times as fast"
        ),
    ),
    (
        "a model that is hard to quantize: float {float:.3f}, int8 {ptq:.3f}",
        "recovered",
        "{qat:.3f} after `train --qat`: {recovered:.0%} of the loss recovered",
    ),
    (
        "{conversions} conversions in a row",
        "grown_kib",
        "the process grew by {grown_kib} KiB, {seconds_each:.1f} s each",
    ),
)
TRAINING: tuple[Row, ...] = (
    (
        "MNIST, {params:,} parameters, {train_s:.0f} s of `train`",
        "accuracy",
        "float {accuracy:.4f}, int8 {int8_accuracy:.4f}",
    ),
    (
        "the same, taught by two larger ones, {train_s:.0f} s in all",
        "distilled_accuracy",
        "float {distilled_accuracy:.4f}, int8 {int8_accuracy:.4f}; the teachers together {ensemble_accuracy:.4f}",
    ),
    (
        "belt detector, {params:,} parameters, {train_s:.0f} s of training",
        "float_ap50",
        "AP50 {float_ap50:.3f}, AP50-95 {float_ap50_95:.3f}; int8 {int8_ap50_95:.3f}",
    ),
    (
        "3 % wrong labels planted in MNIST",
        "mislabel_recall",
        "{mislabel_recall:.1%} found, {mislabel_precision:.1%} of what was found was planted",
    ),
    (
        "2 % near-duplicates planted in it",
        "near_duplicate_recall",
        "{near_duplicate_recall:.1%} found, {near_duplicate_precision:.1%} of what was found was planted",
    ),
    (
        "cleaning {pictures:,} pictures",
        "peak_mib",
        "{clean_s:.0f} s, {pictures_per_s:.0f} a second, {peak_mib} MiB at most",
    ),
    (
        "the belt's pictures, varied",
        "fed_from_memory_per_s",
        "{fed_from_memory_per_s:.0f}/s fed, {fed_from_files_per_s:.0f}/s off disk, {trained_alone_per_s:.0f}/s trained",
    ),
)  # fmt: skip

TABLES = (
    ("training", "training and data", TRAINING),
    ("conversion", "conversion", CONVERSION),
    ("edge", "on the device", EDGE),
)


def rows(table: tuple[Row, ...], held: list[dict[str, Any]]) -> list[str]:
    """Those whose figures are there."""
    made = []
    for what, key, figures in table:
        fitting = (e for e in held if key in e and ("distilled_accuracy" in e) == (key == "distilled_accuracy"))
        made += [f"| {what.format(**each)} | {figures.format(**each)} |" for each in fitting]
    return made


def main() -> None:
    """Read, write."""
    held = [json.loads(Path(name).read_text(encoding="utf-8").splitlines()[-1]) for name in sys.argv[1:]]
    where = sorted({each["where"] for each in held if "where" in each})
    text, written = README.read_text(encoding="utf-8"), 0
    for name, head, table in TABLES:
        if made := rows(table, held):
            block = f"| {head} | |\n|---|---|\n" + "\n".join(made)
            block += f"\n\n{'; '.join(where)}, shared with other work; scripts in [benchmarks/](benchmarks/README.md)."
            text, written = put(text, name, block), written + len(made)
    README.write_text(text, encoding="utf-8")
    print(json.dumps({"rows": written}))


if __name__ == "__main__":
    main()
