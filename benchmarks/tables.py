"""Write what the benchmarks measured into README.md, from the lines they printed.

    python benchmarks/train_mnist.py --data mnist.npz | tee mnist.log     and so on, then
    python benchmarks/tables.py mnist.log distill.log belt.log clean.log pipeline.log
    python benchmarks/tables.py quantize.log qat.log leak.log
    python benchmarks/tables.py pipeline.log memory.log startup.log tracker.log soak.log
    python benchmarks/tables.py outbox.log wire.log
    python benchmarks/tables.py flash.log verify.log swap.log
    python benchmarks/tables.py fleet1000.log fleet10000.log decide.log

Each file's last line is one benchmark's JSON; what it is follows from its keys. Each call writes one of README's
tables. Prints one JSON line last.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from readme import README, put

Row = tuple[str, ...]  # what it is; a key that tells the benchmark; what was measured, and further columns
EDGE: tuple[Row, ...] = (
    (
        "speed of the whole agent, of a bare loop's: 720p H.264, 20 objects in view",
        "frame_age_p95_ms",
        "{ratio:.3f}, the middle of fifteen comparisons",
        "at least 0.95",
        "Ultralytics 0.85 to 0.88",
    ),
    (
        "processor time a frame besides decoding the video, resizing, invoking",
        "frame_age_p95_ms",
        "{overhead_ms:.2f} ms",
        "at most 0.8 ms",
        "MediaPipe Tasks 2.3 to 3.3 ms, Ultralytics 2.2 to 2.6 ms without box or tracker; 0.2 ms of resizing included",
    ),
    (
        "age of a live 30 fps camera's frame when its events are ready, p95",
        "frame_age_p95_ms",
        "{frame_age_p95_ms:.0f} ms; {overloaded_age_p95_ms:.0f} ms at 400 frames a second, too many for the model",
        "at most two frame times (67 ms) and an invoke; bounded",
        "",
    ),
    (
        "memory of the agent after 10,000 frames",
        "rss_mb_every_1000",
        "{rss_mb:.0f} MB",
        "at most 150 MB",
        "bare LiteRT 81 MB, Ultralytics 297 MB",
    ),
    ("more than after 1,000 frames", "rss_mb_every_1000", "{rss_growth_mb:.1f} MB", "at most 2 MB", ""),
    (
        "from the start of the process to the first inference",
        "first_inference_s",
        "{first_inference_s:.2f} s",
        "at most 0.6 s",
        "bare LiteRT 0.18 s, MediaPipe 0.91 s, Ultralytics 1.77 s",
    ),
    (
        "to the end of `--help`; to the first event on the wire",
        "first_inference_s",
        "{help_s:.2f} s; {first_event_s:.2f} s, of which a camera's pace costs {pace_s:.2f} s",
        "",
        "",
    ),
    (
        "the edge install, with The Update Framework and zstd",
        "install_mb",
        "{install_mb:.0f} MB in {packages} packages",
        "below 330 MB and 25 packages",
        "bare dependencies 291 MB in 11, MediaPipe 510 MB, Ultralytics with LiteRT 1,520 MB",
    ),
    (
        "IDF1 of 5, 20 and 100 objects, the mean",
        "peer_idf1",
        "{idf1:.3f}",
        "not below ByteTrack's",
        "ByteTrack of `trackers` {peer_idf1:.3f}, tuned; {peer_untuned_idf1:.3f} with its defaults",
    ),
    ("speed of the tracker, the worst of the three", "peer_idf1", "{speedup:.1f} times ByteTrack's", "at least 4", ""),
    (
        "two hours of four belts in {minutes:.0f} minutes, {frames:,} frames: lost, unexplained, crossings missed",
        "crossing_error",
        "{missing_frames}, {unexplained}, {crossing_error:.1%}",
        "0, 0, at most 1%",
        "",
    ),
    ("memory gained from a tenth of it to its end", "crossing_error", "{rss_growth_mb:.1f} MB", "at most 2 MB", ""),
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

TELLING: tuple[Row, ...] = (
    (
        "events a second out of a backlog of 100,000 on disk, of bare paho's",
        "drained_per_s",
        "{ratio:.2f}: {drained_per_s:,} against {raw_per_s:,}; {lost} lost",
        "at least 0.8",
    ),
    (
        "the same into the outbox while the broker is away",
        "drained_per_s",
        "{kept_per_s:,} a second",
        "",
    ),
    (
        "to give an event to it, as the loop that sees feels it, p99",
        "drained_per_s",
        "{enqueue_p99_ms:.3f} ms",
        "at most 1 ms",
    ),
    (
        "a live event beside the backlog, from giving to sending, p95",
        "drained_per_s",
        "{live_wait_p95_ms:.0f} ms",
        "",
    ),
    (
        "an event: its JSON; with topic and header; with an alias for the topic",
        "event_bytes",
        "{event_bytes}, {packet_bytes}, {packet_bytes_alias} bytes",
        "",
    ),
    (
        "to encode it; to check and decode it",
        "event_bytes",
        "{encode_us:.1f} µs, `json` {json_us:.1f}; {decode_us:.1f} µs, `json` without a check {json_decode_us:.1f}",
        "",
    ),
    (
        "1,000 devices that connect at once: all online; processor time of the broker",
        "event_bytes",
        "{online_1000_s:.1f} s; {broker_cpu_s:.2f} s",
        "",
    ),
)
UPDATES: tuple[Row, ...] = (
    (
        "a machine becomes a device over SSH, with its first bundle; that again; both on {many} devices",
        "again_s",
        "{first_s:.1f} s; {again_s:.1f} s, nothing moved; {many_first_s:.0f} s and {many_again_s:.0f} s",
        "",
    ),
    (
        "moved of a bundle whose head was trained again; all of whose weights were",
        "again_s",
        "{head_only_ratio:.1%}; {all_weights_ratio:.1%}",
        "at most 10%; none",
    ),
    (
        "from `state.json` to a verified bundle; of that beyond hashing; to a loaded model",
        "beyond_hash_ms",
        "{verify_ms:.1f} ms; {beyond_hash_ms:.1f} ms; {ready_s:.3f} s",
        "at most 50 ms beyond hashing",
    ),
    ("speed of verifying 256 MiB, and of hashing alone", "hash_mb_s", "{hash_mb_s:.0f} MB/s, {bare_mb_s:.0f} MB/s", ""),
    (
        "{swaps} changes of the model under a camera of 30 fps: frames lost, events lost",
        "gap_over_invoke",
        "{frames_lost}, {events_lost}",
        "0",
    ),
    (
        "longest time in which a picture waited and no model looked, in looks",
        "gap_over_invoke",
        "{gap_over_invoke:.2f}; as long without changes {still_gap_over_invoke:.2f}",
        "at most 2",
    ),
)
FLEET: tuple[Row, ...] = (
    (
        "{devices:,} simulated devices, four stages, 5 % away at first, 2 % failing, the broker killed once",
        "wrong_bundle",
        "{rollout_s:.0f} s; {confirmed:,} confirmed, {failed} failed, {silent} silent",
        "10,000 within 300 s",
    ),
    (
        "of {devices:,}: running what was not asked for; a wish acted on twice",
        "wrong_bundle",
        "{wrong_bundle}; {duplicates_acted}",
        "0; 0",
    ),
    (
        "with {devices:,}: the controller's memory and processor time; the broker's memory",
        "wrong_bundle",
        "{controller_rss_mb:.0f} MB, {controller_cpu_s:.0f} s; {broker_rss_mb:.0f} MB",
        "at most 300 MB",
    ),
    (
        "messages and bytes a device, of {devices:,}",
        "wrong_bundle",
        "{messages_per_device:.0f}; {bytes_per_device:,.0f}",
        "",
    ),
    (
        "decisions a second on the reports of {devices:,} devices; a turn in which nothing changed",
        "decisions_per_s",
        "{decisions_per_s:,.0f}; {idle_ms:.0f} ms",
        "",
    ),
)
PAGE: tuple[Row, ...] = (
    (
        "{devices:,} simulated devices, {events_per_s:.0f} events/s: until the list is of use",
        "first_paint_ms",
        "{first_paint_ms} ms (worst of five {first_paint_worst_ms})",
        "at most 2,000 ms",
    ),
    (
        "tasks of the main thread of 1 ms and more: 95 of 100 within; the longest; longer than 50 ms",
        "first_paint_ms",
        "{long_task_p95_ms:.0f} ms; {longest_task_ms:.0f} ms; {tasks_over_50_ms} of {tasks}",
        "at most 50 ms",
    ),
    (
        "share of a core: JavaScript; with layout and painting",
        "first_paint_ms",
        "{scripting_core:.2f}; {main_core:.2f}",
        "at most 0.50",
    ),
    (
        "heap after {minutes:.0f} minutes; grown since the list was full",
        "first_paint_ms",
        "{heap_mb:.0f} MB; {heap_growth_mb:.1f} MB",
        "flat",
    ),
    ("JavaScript that is loaded, by gzip", "first_paint_ms", "{js_gzip_kib:.0f} KiB", "at most 200 KiB"),
)
TABLES = (
    ("page", ("the page in a browser, on the same machine as all else", "measured", "target"), PAGE),
    ("fleet", ("rollouts, all on one machine", "measured", "target"), FLEET),
    ("updates", ("updates, on one machine", "measured", "target"), UPDATES),
    ("training", ("training and data", ""), TRAINING),
    ("conversion", ("conversion", ""), CONVERSION),
    ("telling", ("over MQTT, to a Mosquitto on the same machine", "measured", "target"), TELLING),
    ("edge", ("on the device", "measured", "target", "others"), EDGE),
)


def line(cells: Iterable[str]) -> str:
    """A table's row."""
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


def rows(table: tuple[Row, ...], held: list[dict[str, Any]]) -> list[str]:
    """Those whose figures are there."""
    made = []
    for what, key, *columns in table:
        fitting = (
            each
            for each in held
            if each.get(key) is not None and ("distilled_accuracy" in each) == (key == "distilled_accuracy")
        )
        made += [line(cell.format(**each) for cell in (what, *columns)) for each in fitting]
    return made


def main() -> None:
    """Read, write."""
    held = [json.loads(Path(name).read_text(encoding="utf-8").splitlines()[-1]) for name in sys.argv[1:]]
    where = sorted({each["where"] for each in held if "where" in each})
    text, written = README.read_text(encoding="utf-8"), 0
    for name, head, table in TABLES:
        if made := rows(table, held):
            block = "\n".join((line(head), "|---" * len(head) + "|", *made))
            block += f"\n\n{'; '.join(where)}, shared with other work; scripts in [benchmarks/](benchmarks/README.md)."
            text, written = put(text, name, block), written + len(made)
    README.write_text(text, encoding="utf-8")
    print(json.dumps({"rows": written}))


if __name__ == "__main__":
    main()
