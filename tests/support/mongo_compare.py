#!/usr/bin/env python3
"""Compares collections of a MongoDB database with their tables in the lake.

stdin:  {"url": "mongodb://…", "database": "…", "tables": {"collection": <answer of lake_rows.py> or null, …}}
stdout: one line per difference; nothing when all are equal. Exit status 1 for a difference.

A table equals its collection when (1) the documents of its column `_doc`, read as canonical Extended JSON by
pymongo, are the collection's documents byte for byte, each as often; and (2) every other column of a row is
what the rules of README.md make of that row's own document, one rule for a whole column.
"""
import collections
import decimal as decimal_module
import json
import math
import sys
import uuid

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from bson.son import SON

JSON = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, document_class=SON,
                             datetime_conversion=DatetimeConversion.DATETIME_MS)
CODEC = CodecOptions(document_class=SON, datetime_conversion=DatetimeConversion.DATETIME_MS)
EXACT = 1 << 53


class Repeated(Exception):
    """A document has a name twice, which no dictionary holds."""


def pairs(items):
    if len({name for name, _ in items}) < len(items):
        raise Repeated
    return json_util.object_pairs_hook(items, JSON)


def parsed(text):
    return json.loads(text, object_pairs_hook=pairs)


def canonical(value):
    return json.loads(json_util.dumps(value, json_options=JSON))


def field_of(column):
    if column == "~":
        return ""
    out, rest = b"", column.encode()
    while rest:
        if rest[:1] == b"~":
            out, rest = out + bytes([int(rest[1:3], 16)]), rest[3:]
        else:
            out, rest = out + rest[:1], rest[1:]
    return out.decode()


def micros(text):
    """`2024-02-29 10:30:45.123+00`, with ` BC` behind it -> microseconds of Unix time."""
    body, bc = (text[:-3], True) if text.endswith(" BC") else (text, False)
    date, time = body.removesuffix("+00").split(" ")
    year, month, day = (int(part) for part in date.rsplit("-", 2))
    year = 1 - year if bc else year
    y = year - (month <= 2)
    era, yoe = divmod(y, 400)
    doy = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
    hours, minutes, seconds = time.split(":")
    whole, _, fraction = seconds.partition(".")
    return ((days * 24 + int(hours)) * 60 + int(minutes)) * 60_000_000 + int(whole) * 1_000_000 + int(fraction.ljust(6, "0"))


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def same_json(text, value):
    try:
        return parsed_plain(text) == canonical(value)
    except (ValueError, Repeated):
        return False


def parsed_plain(text):
    return json.loads(text)


def oid(text, value):
    return isinstance(value, bson.ObjectId) and text == str(value)


def decimal(text, value):
    return isinstance(value, bson.Decimal128) and text == str(value)


def plain(text, value):
    return isinstance(value, str) and not isinstance(value, bson.code.Code) and text == value


def is_uuid(text, value):
    return isinstance(value, bson.Binary) and value.subtype == 4 and text == str(uuid.UUID(bytes=bytes(value)))


def binary(text, value):
    return isinstance(value, bytes) and getattr(value, "subtype", 0) == 0 and text == "\\x" + bytes(value).hex()


def date(text, value):
    return isinstance(value, bson.datetime_ms.DatetimeMS) and micros(text) == int(value) * 1000


def number(text, value):
    if is_int(value) and abs(value) > EXACT or not (is_int(value) or isinstance(value, float)):
        return False
    have = float(text)
    return math.isnan(have) and math.isnan(value) if math.isnan(have) else (have, math.copysign(1, have)) == (float(value), math.copysign(1, value))


def integer(text, value):
    return is_int(value) and text == str(int(value))


def boolean(text, value):
    return isinstance(value, bool) and text == ("t" if value else "f")


def numeric(value):
    """A number of any kind by its value; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, bson.Decimal128)):
        return None
    return value.to_decimal() if isinstance(value, bson.Decimal128) else decimal_module.Decimal(value)


def normal(text, value):
    """The key of a collection with mixed _ids: it stands for an equal value, and equal numbers of all kinds
    are one key."""
    have = parsed(text)
    if numeric(value) is not None and numeric(have) is not None:
        return str(numeric(have)) == str(numeric(value)) or numeric(have) == numeric(value)
    return have == value or str(have) == str(value)


RULES = {"bool": [boolean], "int64": [integer], "double": [number], "timestamp": [date], "binary": [binary],
         "string": [plain, oid, decimal, is_uuid, same_json]}


def column_fault(column, kind, values):
    """None when one rule explains the whole column; else the first row that the best rule doesn't."""
    rules = next((rules for name, rules in RULES.items() if kind.startswith(name)), None)
    if rules is None:
        return f"column {column} has the type {kind}"
    if column == "_id":
        rules = rules + [normal]
    faults = []
    for rule in rules:
        wrong = next(((text, value) for text, value in values
                      if (text is None) != (value is None) or text is not None and not rule(text, value)), None)
        if wrong is None:
            return None
        faults.append(wrong)
    return f"column {column} ({kind}): {faults[-1][0]!r} in the lake for {faults[-1][1]!r}"


def table_faults(collection, lake):
    have = collections.Counter(document.raw for document in collection.find())
    if lake is None:
        return ["is not in the lake"] if have else []
    if "_doc" not in lake["columns"]:
        return [f"has no column _doc: {lake['columns']}"]
    place = lake["columns"].index("_doc")
    documents, repeated, faults = [], 0, []
    for row in lake["rows"]:
        try:
            documents.append((row, parsed(row[place])))
        except Repeated:
            repeated += 1
    lake_raw = collections.Counter(bson.encode(document, codec_options=CODEC) for _, document in documents)
    missing, extra = have - lake_raw, lake_raw - have
    if sum(missing.values()) != repeated or extra:
        faults.append(f"source has {sum(have.values())} documents, lake {len(lake['rows'])}; missing "
                      f"{sum(missing.values()) - repeated}, too many {sum(extra.values())}")
        faults += [f"  missing {shown(raw)}" for raw in list(missing)[:3]]
        faults += [f"  too many {shown(raw)}" for raw in list(extra)[:3]]
    for at, (column, kind) in enumerate(zip(lake["columns"], lake["types"])):
        if column != "_doc":
            field = field_of(column)
            fault = column_fault(column, kind, [(row[at], document.get(field)) for row, document in documents])
            faults += [fault] if fault else []
    return faults


def shown(raw):
    return json_util.dumps(bson.decode(raw, CODEC), json_options=JSON)[:300]


def main():
    import pymongo
    asked = json.load(sys.stdin)
    client = pymongo.MongoClient(asked["url"], document_class=RawBSONDocument)
    wrong = False
    for name, lake in asked["tables"].items():
        for fault in table_faults(client[asked["database"]][name], lake):
            wrong = True
            print(f"{name}: {fault}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
