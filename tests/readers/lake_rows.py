#!/usr/bin/env python3
"""Reads Delta tables and answers with their rows in the text form of PostgreSQL's output functions.

One JSON object a line on stdin, one answer a line on stdout:
    {"path": "/lake/shop/public/t"}        a local table, or s3://bucket/prefix (AWS_* in the environment)
    {"columns": [..], "types": [..], "rows": [[text or null, ..], ..], "engine": "duckdb", "note": null}
    {"missing": true}                       there is no Delta table at the path
    {"error": "..."}

DuckDB with its delta extension reads. What it refuses is read by deltalake (delta-rs and pyarrow) in the
environment beside it, and "note" says so. A table in S3 is copied to a temporary folder first, so that both
stores are read by the same engine. Dates and times are computed from the stored integers, never through
Python's datetime, which knows neither BC nor years above 9999.
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction

US_PER_DAY = 86_400_000_000
UNIT_US = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
QUOTED = re.compile(r'[\s"\\{},]', re.ASCII)


# ---------------------------------------------------------------- values as PostgreSQL prints them


def date_text(days):
    """Days since 1970-01-01, proleptic Gregorian -> ('YYYY-MM-DD', whether it is BC)."""
    z = days + 719468
    era, doe = divmod(z, 146097)
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    day = doy - (153 * mp + 2) // 5 + 1
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (month <= 2)
    bc = year <= 0
    return f"{1 - year if bc else year:04d}-{month:02d}-{day:02d}", bc


def date_out(days):
    text, bc = date_text(days)
    return text + " BC" if bc else text


def timestamp_out(us, zone):
    days, rest = divmod(us, US_PER_DAY)
    text, bc = date_text(days)
    seconds, micros = divmod(rest, 1_000_000)
    text += f" {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if micros:
        text += f".{micros:06d}".rstrip("0")
    return text + zone + (" BC" if bc else "")


def neighbours(value, single):
    """The halfway points between a positive float and the floats beside it, exact."""
    code, bits = ("f", "I") if single else ("d", "Q")
    whole = struct.unpack(bits, struct.pack(code, value))[0]
    below, above = (struct.unpack(code, struct.pack(bits, whole + d))[0] for d in (-1, 1))
    if above == float("inf"):
        above = 2 * Fraction(value) - Fraction(below)
    return (Fraction(below) + Fraction(value)) / 2, (Fraction(value) + Fraction(above)) / 2


def shortest(value, single):
    """The digits and decimal exponent of the shortest text strictly nearer to the float than to any other.

    Python's repr also takes a text exactly halfway to the next float; PostgreSQL doesn't.
    """
    low, high = neighbours(value, single)
    # No text shorter than repr's reads back as the same double.
    fewest = 0 if single else len(repr(value).split("e")[0].replace(".", "").strip("0")) - 1
    for n in range(max(fewest, 0), 17):
        text = f"{value:.{n}e}"
        if low < Fraction(text) < high:
            break
    mantissa, exponent = text.split("e")
    return mantissa.replace(".", "").rstrip("0") or "0", int(exponent)


def float_out(value, single):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    sign = "-" if str(value).startswith("-") else ""
    if value == 0:
        return sign + "0"
    digits, exp = shortest(abs(value), single)
    if exp < -4 or exp >= (6 if single else 15):
        frac = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{frac}e{'-' if exp < 0 else '+'}{abs(exp):02d}"
    if exp < 0:
        return sign + "0." + "0" * (-exp - 1) + digits
    whole = digits[: exp + 1].ljust(exp + 1, "0")
    frac = digits[exp + 1 :]
    return sign + whole + ("." + frac if frac else "")


def array_out(elements):
    out = []
    for text in elements:
        if text is None:
            out.append("NULL")
        elif text == "" or text.upper() == "NULL" or QUOTED.search(text):
            out.append('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
        else:
            out.append(text)
    return "{" + ",".join(out) + "}"


def mapped(values, convert):
    return [None if v is None else convert(v) for v in values]


def list_texts(array):
    elements = iter(texts(array.flatten()))
    lengths = array.value_lengths().to_pylist()
    return [None if n is None else array_out([next(elements) for _ in range(n)]) for n in lengths]


def texts(array):
    """An Arrow array -> a list of texts and Nones."""
    import pyarrow as pa
    t, ty = pa.types, array.type
    if t.is_dictionary(ty):
        return texts(array.dictionary_decode())
    if t.is_boolean(ty):
        return mapped(array.to_pylist(), lambda v: "t" if v else "f")
    if t.is_integer(ty):
        return mapped(array.to_pylist(), str)
    if t.is_floating(ty):
        single = t.is_float32(ty)
        return mapped(array.to_pylist(), lambda v: float_out(v, single))
    if t.is_decimal(ty):
        return mapped(array.to_pylist(), lambda v: format(v, "f"))
    if t.is_date32(ty):
        return mapped(array.cast(pa.int32()).to_pylist(), date_out)
    if t.is_timestamp(ty):
        if ty.tz not in (None, "UTC", "Etc/UTC", "+00:00"):
            raise ValueError(f"timestamps in {ty.tz}")
        up, down = UNIT_US[ty.unit]
        return mapped(array.cast(pa.int64()).to_pylist(), lambda v: timestamp_out(v * up // down, "+00" if ty.tz else ""))
    if t.is_binary(ty) or t.is_large_binary(ty) or t.is_fixed_size_binary(ty) or t.is_binary_view(ty):
        return mapped(array.to_pylist(), lambda v: "\\x" + v.hex())
    if t.is_string(ty) or t.is_large_string(ty) or t.is_string_view(ty):
        return array.to_pylist()
    if t.is_list(ty) or t.is_large_list(ty):
        return list_texts(array)
    if t.is_null(ty):
        return [None] * len(array)
    raise ValueError(f"no text form for the type {ty}")


# ---------------------------------------------------------------- engines


class DuckDb:
    name = "duckdb"

    def __init__(self):
        import duckdb
        import duckdb_extensions
        self.con = duckdb.connect(config={"threads": 1, "memory_limit": "1GB"})
        duckdb_extensions.import_extension("delta", con=self.con)
        self.con.execute("LOAD delta; SET TimeZone='UTC'")

    def read(self, path):
        quoted = path.replace("'", "''")
        return self.con.execute(f"SELECT * FROM delta_scan('{quoted}')").to_arrow_table()


class DeltaRs:
    name = "deltalake"

    def read(self, path):
        import deltalake
        return deltalake.DeltaTable(path).to_pyarrow_dataset().to_table()


class Fallback:
    """This script once more, in the deltalake environment beside this one."""

    def __init__(self):
        self.process = None

    def ask(self, path):
        if self.process is None or self.process.poll() is not None:
            python = os.path.join(os.path.dirname(os.path.dirname(sys.prefix)), "venvs", "deltalake", "bin", "python")
            self.process = subprocess.Popen([python, os.path.abspath(__file__), "--engine", "deltalake"],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps({"path": path}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the deltalake reader ended"}


def answer(table, engine):
    columns = [table.column(i).combine_chunks() for i in range(table.num_columns)]
    parts = [texts(c) for c in columns]
    rows = [list(r) for r in zip(*parts)] if parts else [[] for _ in range(table.num_rows)]
    return {"columns": table.column_names, "types": [str(c.type) for c in columns], "rows": rows,
            "engine": engine, "note": None}


# ---------------------------------------------------------------- S3


def s3():
    from pyarrow import fs
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")
    return fs.S3FileSystem(access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
                           region=os.environ.get("AWS_REGION", "us-east-1"),
                           scheme=scheme or "https", endpoint_override=host or None)


def copied(url, folder):
    from pyarrow import fs
    store, base = s3(), url[len("s3://"):].rstrip("/")
    files = store.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    for f in files:
        if f.type == fs.FileType.File:
            target = os.path.join(folder, os.path.relpath(f.path, base))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with store.open_input_stream(f.path) as src, open(target, "wb") as dst:
                shutil.copyfileobj(src, dst)
    return folder


# ---------------------------------------------------------------- the conversation


def read(path, engine, fallback):
    log = os.path.join(path, "_delta_log")
    if not os.path.isdir(log) or not any(n.endswith(".json") for n in os.listdir(log)):
        return {"missing": True}
    try:
        return answer(engine.read(path), engine.name)
    except Exception as refused:
        if fallback is None:
            raise
        result = fallback.ask(path)
        said = f"{engine.name} refused: {type(refused).__name__}: {refused}"
        if "error" in result:
            result["error"] = f"{said}; {result['error']}"
        else:
            result["note"] = said
        return result


def serve(engine, fallback):
    for line in sys.stdin:
        folder = None
        try:
            path = json.loads(line)["path"]
            if path.startswith("s3://"):
                folder = tempfile.mkdtemp(prefix="lake-rows-")
                path = copied(path, folder)
            result = read(path, engine, fallback)
        except Exception as e:
            result = {"error": f"{type(e).__name__}: {e}"}
        finally:
            if folder:
                shutil.rmtree(folder)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--engine", "deltalake"]:
        serve(DeltaRs(), None)
    else:
        serve(DuckDb(), Fallback())
