"""What the scripts of MongoDB share (tests/traps/mongo, tests/behavior/mongo).

    PYTHONPATH=tests/support MONGO_URL=… MONGO_DATABASE=… python -P tests/traps/mongo/MG-002.py

A case has a database of its own. At each phase it prints `phase <name>` and waits for a line on its input, so
that whoever runs it may start or stop a daemon there; at its end it prints its collections as one JSON value:
{"collections": {name: documents in canonical Extended JSON, or {"$count": n} for more than 60},
 "refused": {name: words of the reason why it can't be kept}}.
"""
import datetime
import json
import os
import sys
import uuid

from bson import (SON, Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp,
                  json_util)
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, UpdateOne

UTC = datetime.timezone.utc


def dt(*parts):
    return datetime.datetime(*parts, tzinfo=UTC)


class Case:
    def __init__(self, name):
        from pymongo import MongoClient
        self.client = MongoClient(os.environ["MONGO_URL"])
        self.name = os.environ["MONGO_DATABASE"]
        self.client.drop_database(self.name)
        options = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
        self.db = self.client.get_database(self.name, codec_options=options)

    def phase(self, name):
        print("phase", name, flush=True)
        if not sys.stdin.readline():
            sys.exit("nobody waits for this case any more")

    def done(self, refused=None):
        collections = {}
        # Neither the server's own, nor time series, which no change stream shows.
        entries = self.db.list_collections(filter={"type": "collection"})
        names = [entry["name"] for entry in entries if "timeseries" not in entry.get("options", {})]
        for name in sorted(name for name in names if not name.startswith("system.")):
            count = self.db[name].count_documents({})
            if count > 60:
                collections[name] = {"$count": count}
            else:
                documents = list(self.db[name].find().sort("_id", 1))
                collections[name] = json.loads(json_util.dumps(documents, json_options=json_util.CANONICAL_JSON_OPTIONS))
        print(json.dumps({"collections": collections, "refused": refused or {}}), flush=True)
