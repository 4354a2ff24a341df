"""What the benchmark does to MongoDB, by pymongo.

    documents.py URL version | make N | read | now | change N UPDATES SEED | watch TIME N | look | load
    documents.py URL visible SECONDS
"""

import bisect
import datetime
import itertools
import json
import sys
import threading
import time

import bson
from bson import Decimal128, Int64, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, MongoClient, UpdateOne
from pymongo.errors import OperationFailure

DAY = datetime.datetime(2026, 1, 1)


def hashed(n, seed):
    """A number of 63 bits that looks random, the same in every run."""
    n = (n * 0x9E3779B97F4A7C15 + seed * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    n = ((n ^ (n >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    return (n ^ (n >> 27)) >> 1


def document(n):
    """12 fields, about 400 bytes."""
    h = hashed(n, 11)
    return {
        "_id": n,
        "customer": Int64(h & 262143),
        "status": ("new", "paid", "packed", "shipped", "delivered", "returned")[h % 6],
        "amount": (h >> 20 & 0xFFFFF) / 100,
        "price": Decimal128(f"{h & 8191}.{h >> 13 & 63:02}"),
        "note": f"order {n} {h:032x}" if n % 50 else None,
        "session": ObjectId(f"{h:024x}"),
        "created": DAY + datetime.timedelta(seconds=h & 0x7FFFFF, milliseconds=h >> 24 & 511),
        "gift": h & 64 == 0,
        "items": [{"sku": f"SKU-{h >> 8 & 0xFFFFF}", "n": h & 7}, {"sku": f"SKU-{h >> 12 & 0xFFFFF}", "n": 1}],
        "address": {"city": f"city {h & 1023}", "street": f"street {h >> 10 & 4095}", "zip": f"{h & 65535:05}"},
        "version": 0,
    }


def make(events, n):
    events.drop()
    for first in range(0, n, 10_000):
        events.insert_many([document(k) for k in range(first, min(first + 10_000, n))], ordered=False)
    print(len(bson.encode(document(n // 2))))


def read(events):
    total = sum(len(batch) for batch in events.find_raw_batches(batch_size=5000))
    assert total > 0, "nothing was read"


def change(events, n, updates, seed):
    for first in range(0, updates, 1000):
        some = (hashed(k, seed) % n for k in range(first, min(first + 1000, updates)))
        events.bulk_write([UpdateOne({"_id": k}, {"$inc": {"version": 1}, "$set": {"status": "changed"}}) for k in some], ordered=False)
    print(updates)


def load(events):
    """For every line "N COUNT SEED" of the input so many changes of N documents: of twenty, eighteen
    update one, one deletes one, and one brings a new one."""
    for line in sys.stdin:
        n, count, seed = map(int, line.split())
        writes = []
        for k in range(count):
            some = hashed(k, seed) % n
            if k % 20 == 0:
                writes.append(DeleteOne({"_id": some}))
            elif k % 20 == 1:
                writes.append(InsertOne(document(n + hashed(k, seed) % 2**40)))
            else:
                writes.append(UpdateOne({"_id": some}, {"$inc": {"version": 1}, "$set": {"status": "changed"}}))
        events.bulk_write(writes, ordered=False)


def visible(client, seconds):
    """Whether reads of a majority see what was committed before the time that they are told to see: MongoDB
    says so (manual, "Causal Consistency and Read and Write Concerns"), and snapshots and verifications rely on
    it. Says how often a read missed an update of before its time."""
    events, count = client["bench"]["visible"], 50
    events.drop()
    events.insert_many([{"_id": n, "v": 0} for n in range(count)])
    start, ended, updates, reads = majority(client), threading.Event(), [[] for _ in range(count)], []

    def follow():
        with events.watch(start_at_operation_time=Timestamp(start.time, start.inc + 1), max_await_time_ms=100) as stream:
            while not ended.is_set():
                event = stream.try_next()
                if event and event["operationType"] == "update":
                    updates[event["documentKey"]["_id"]].append(event["clusterTime"])

    def update(first):
        for n in itertools.count(first):
            if writes.is_set():
                return
            events.update_one({"_id": n * 7 % count}, {"$inc": {"v": 1}})

    writes = threading.Event()
    threads = [threading.Thread(target=follow), *(threading.Thread(target=update, args=(n,)) for n in (0, 3))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        since = majority(client)
        concern = {"level": "majority", "afterClusterTime": since}
        find = {"find": "visible", "sort": {"_id": 1}, "batchSize": 2 * count, "readConcern": concern}
        found = client["bench"].command(find)["cursor"]["firstBatch"]
        reads.append((since, [document["v"] for document in found]))
    writes.set()
    follower, *writers = threads
    for writer in writers:
        writer.join()
    made, end = sum(document["v"] for document in events.find()), time.monotonic() + 60
    while sum(map(len, updates)) < made and time.monotonic() < end:
        time.sleep(0.1)
    ended.set()
    follower.join()
    if sum(map(len, updates)) != made:
        sys.exit(f"of {made} updates the change stream brought {sum(map(len, updates))}: nothing can be said")
    late = sum(v < bisect.bisect_right(updates[n], since) for since, found in reads for n, v in enumerate(found))
    print(f"{len(reads)} reads beside {sum(map(len, updates))} updates: {late} updates of before were not seen")


def majority(client):
    return client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]


def watch(events, since, count):
    at, ordinal = map(int, since.split("."))
    with events.with_options(codec_options=bson.CodecOptions(document_class=RawBSONDocument)).watch(
        start_at_operation_time=Timestamp(at, ordinal), batch_size=5000
    ) as stream:
        for seen, _ in enumerate(stream, 1):
            if seen == count:
                return


def look(client):
    """Answers every line of the input with what can be seen of the daemon's reading; the stand-in doesn't
    know all of it."""
    for _ in sys.stdin:
        print(json.dumps(looked(client)), flush=True)


def looked(client):
    seen = {}
    try:
        oplog = client.local.command("collStats", "oplog.rs")
        seen["log"] = int(oplog["size"])
    except (OperationFailure, KeyError):
        pass
    try:
        ops = client.admin.aggregate([{"$currentOp": {}}])
        running = [op.get("microsecs_running", 0) for op in ops if op.get("command", {}).get("comment") == "lakeward"]
        seen["statement"] = max(running, default=0) / 1e6
    except OperationFailure:
        seen["statement"] = None
    return {"statement": 0.0, "log": None, "locks": [], **seen}


def main():
    url, what, *rest = sys.argv[1:]
    client = MongoClient(url)
    events = client["bench"]["events"]
    if what == "version":
        print(client.server_info()["version"])
    elif what == "now":
        now = client.admin.command("hello")["operationTime"]
        print(f"{now.time}.{now.inc + 1}")
    elif what == "look":
        look(client)
    elif what == "load":
        load(events)
    elif what == "visible":
        visible(client, float(rest[0]))
    elif what == "watch":
        watch(events, rest[0], int(rest[1]))
    else:
        {"make": make, "read": read, "change": change}[what](events, *map(int, rest))


if __name__ == "__main__":
    main()
