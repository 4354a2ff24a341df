"""How long after it was made each change could be seen in a Delta table.

    visible.py TABLE VERSION SINCE

looks at the commits after a version, for rows whose updated_at is later than SINCE (microseconds of Unix
time), and prints JSON. updated_at is the clock at the statement; a commit can be seen from when its file
has its name in _delta_log. On a local disk the file system notes that time: giving a file its name changes
its inode (st_ctime), with the precision of the kernel's tick.
"""

import json
import os
import sys
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def longest(times):
    """The longest time between two, in seconds."""
    return max((b - a for a, b in zip(times, times[1:])), default=0) / 1e6


table, version, since = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = os.path.join(table, "_delta_log")
commits = sorted(name for name in os.listdir(log) if name.endswith(".json") and int(name[:20]) > version)
flushes, took, made, again = [], [], [], 0
data_bytes = log_bytes = 0
for name in commits:
    path = os.path.join(log, name)
    stat = os.stat(path)
    seen = stat.st_ctime_ns // 1000
    log_bytes += stat.st_size
    with open(path) as f:
        adds = [a for a in (json.loads(line).get("add") for line in f) if a]
    # An older file that has lost rows is added again, with the vector of those.
    adds = [a for a in adds if a["dataChange"] and not a.get("deletionVector")]
    newest = since
    for add in adds:
        times = pq.read_table(os.path.join(table, unquote(add["path"])), columns=["updated_at"])["updated_at"]
        times = times.cast(pa.int64())
        # The source commits in the order of these times, so what was seen before is not later: such rows
        # are those of small files that were written into this one as well.
        fresh = times.filter(pc.greater(times, since))
        again += len(times) - len(fresh)
        data_bytes += add["size"]
        if len(fresh):
            made.append(fresh)
            took.append(pc.subtract(seen, fresh.combine_chunks()))
            newest = max(newest, pc.max(fresh).as_py())
    if newest > since:
        flushes.append(seen)
    since = newest
took = pa.chunked_array(took, pa.int64())
made = sorted(time for times in made for time in times.to_pylist())
median, p99 = (t / 1e6 for t in pc.quantile(took, [0.5, 0.99]).to_pylist())
print(
    json.dumps(
        {
            "rows": len(took),
            "median_s": median,
            "p99_s": p99,
            "max_s": pc.max(took).as_py() / 1e6,
            "flushes": len(flushes),
            "longest_gap_s": longest(flushes),
            "longest_pause_s": longest(made),
            "rows_again": again,
            "data_bytes": data_bytes,
            "log_bytes": log_bytes,
        }
    )
)
