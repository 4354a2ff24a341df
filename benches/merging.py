"""What delta-rs takes for a MERGE of the same size: the yardstick beside Lakeward's ways to merge.

    merging.py TABLE COPY CHANGES             in the environment of deltalake

Copies the rows of TABLE into a new table of delta-rs, and merges so many changed rows, spread over all of them,
into that. Prints JSON: CPU seconds, bytes of the files that the MERGE wrote, and resident bytes at most.
"""

import json
import resource
import sys

import deltalake
import pyarrow as pa

KEY = "id"


def rows(table, sql):
    return deltalake.QueryBuilder().register("t", table).execute(sql)


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sizes(table):
    adds = pa.table(table.get_add_actions(flatten=True))
    return dict(zip(adds["path"].to_pylist(), adds["size_bytes"].to_pylist()))


def main(table, out, changes):
    deltalake.write_deltalake(out, rows(deltalake.DeltaTable(table), "SELECT * FROM t"))
    target = deltalake.DeltaTable(out)
    count = pa.table(rows(target, "SELECT count(*) AS n FROM t").read_all())["n"][0].as_py()
    # The keys are even numbers, each once.
    step = 2 * max(1, count // changes)
    changed = pa.table(rows(target, f"SELECT * FROM t WHERE {KEY} % {step} = 0").read_all())
    changed = changed.set_column(changed.schema.get_field_index("note"), "note", pa.array(["changed"] * len(changed)))
    before, began = sizes(target), used()
    merge = target.merge(changed, f"t.{KEY} = s.{KEY}", source_alias="s", target_alias="t")
    told = merge.when_matched_update_all().execute()
    took, after = used() - began, sizes(target)
    if told["num_target_rows_updated"] != len(changed):
        sys.exit(f"delta-rs updated {told['num_target_rows_updated']} rows of {len(changed)}")
    figures = {
        "rows": count,
        "changes": len(changed),
        "cpu_s": took,
        "written": sum(size for path, size in after.items() if path not in before),
        "max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
