"""The lake writer's figures beside what was wanted, as a table in Markdown: table.py FOLDER, where benches/table
has left those of each part."""

import json
import os
import sys

OURS = "lakeward run --until-current"


def part(name):
    with open(os.path.join(sys.argv[1], f"{name}.json")) as f:
        return json.load(f)


def postgres(name, key):
    return part(name)["postgres"][key]


def best(figures, what, key, pick=min):
    """The best turn of a program."""
    return pick(f[key] for f in figures if f["what"].startswith(what))


def rows():
    """What it is, what was seen, what was wanted, whether it is reached, and what measures it."""
    w1, cpu, rate = postgres("w1", "w1"), "cpu_s_per_million", "rows_per_s"
    ours, script = best(w1, OURS, cpu), best(w1, "COPY csv", cpu)
    yield "W1, snapshot of 5,000,000 rows: CPU s a million", f"{ours:.2f}", 1.1, ours <= 1.1, "w1"
    yield "the script without upserts, beside it", f"{script:.2f}", "", None, ""
    yield "COPY binary to nowhere, beside it", f"{best(w1, 'COPY binary', cpu):.2f}", "", None, ""
    ratio = best(w1, OURS, rate, max) / best(w1, "COPY binary", rate, max)
    yield "rows a second, of those of COPY binary", f"{ratio:.2f}", 0.5, ratio >= 0.5, ""

    w3 = postgres("vectors", "w3")
    ratio = best(w3, OURS, cpu) / best(w3, "pg_recvlogical", cpu)
    yield ("W3, 1,400,000 changes into 5,000,000 rows, deletion vectors: CPU, of that of pg_recvlogical",
           f"{ratio:.2f} ({best(w3, OURS, cpu):.2f} s a million)", 3, ratio <= 3, "w3 --merge deletion-vectors")
    ratio = best(w3, OURS, rate, max) / best(w3, "pg_recvlogical", rate, max)
    yield "changes a second, of those of pg_recvlogical", f"{ratio:.2f}", 0.7, ratio >= 0.7, ""
    rewrite = best(postgres("rewrite", "w3"), OURS, cpu)
    yield "the same by rewriting: CPU s a million", f"{rewrite:.1f}", "", None, "w3 --merge rewrite"

    merge, huge = part("merge"), part("merge50")
    seen = merge["vectors_random"]
    yield "100,000 random rows into 20,000,000, deletion vectors: CPU s", f"{seen:.2f}", 0.6, seen <= 0.6, "merge"
    if "delta_rs_random" in merge:
        yield "MERGE by delta-rs of as many, beside it", f"{merge['delta_rs_random']:.1f}", "", None, ""
    seen = merge["rewrite_random"]
    yield "the same by rewriting, of decoding and encoding all", f"{seen:.2f}", 1.25, seen <= 1.25, ""
    seen = merge["rewrite_newest"]
    yield "10,000 newest rows, rewriting: CPU s", f"{seen:.2f}", 0.5, seen <= 0.5, ""
    seen = huge["vectors_thousand"]
    yield ("1,000 random rows into 50,000,000, of the same into 1,000,000 (into 20,000,000)",
           f"{seen:.2f} ({merge['vectors_thousand']:.2f})", 1.3, seen <= 1.3, "merge --rows 50000000 --ratio")
    seen = merge["looked_up"]
    yield "keys looked up a CPU second, of 20,000,000", f"{seen:,.0f}", "1,000,000", seen >= 1e6, "merge"
    seen = merge["built"]
    yield "keys read and indexed a CPU second", f"{seen:,.0f}", "5,000,000", seen >= 5e6, ""
    seen = merge["index_bytes_a_row"]
    yield "index, bytes a row on disk", f"{seen:.1f}", 12, seen <= 12, ""

    fresh = postgres("fresh", "fresh")
    for key, text, wanted in (("median_s", "half of them", 0.8), ("p99_s", "99 of 100", 2)):
        yield f"1,000 changes a second, seen after: {text}", f"{fresh[key]:.2f} s", f"{wanted} s", fresh[key] <= wanted, "fresh"
    yield "bytes written a change, with compaction", f"{fresh['written_per_change']:,.0f}", "", None, ""

    for line in postgres("memory", "memory"):
        yield (f"memory at most, {line['what']}", f"{line['max_rss_mib']:.0f} MiB", f"{line['bound_mib']:.0f} MiB",
               line["inside"], "memory")

    steady = postgres("steady", "steady")
    for engine in ("duckdb", "polars"):
        for what, wanted, text in (("scan", 1.15, "all rows"), ("lookup", 1.5, "one row")):
            if engine in steady:
                ratio = steady[engine][what]["table_s"] / steady[engine][what]["copy_s"]
                yield (f"after fifteen minutes: {text}, {engine}, of a new table's time", f"{ratio:.2f}", wanted,
                       ratio <= wanted, "steady")
    gap = steady["longest_gap_s"]
    yield "longest time between two commits, of 1 s", f"{gap:.2f} s", "2 s", gap <= 2, "steady"


def main():
    print("| | seen | wanted | | `./dev bench --only` |\n| --- | --- | --- | --- | --- |")
    last = None
    for what, seen, wanted, reached, command in rows():
        verdict = {True: "reached", False: "**not reached**", None: ""}[reached]
        print(f"| {what} | {seen} | {wanted} | {verdict} | {f'`{command}`' if command and command != last else ''} |")
        last = command or last


if __name__ == "__main__":
    main()
