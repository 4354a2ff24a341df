"""The turns of benches/run, which starts Postgres and says in the environment where all is."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

PG_BIN, PG_PID = os.environ["PG_BIN"], int(os.environ["PG_PID"])
URL = os.environ["LAKEWARD_TEST_PG15_URL"]
LAKEWARD = os.environ["LAKEWARD"]
VENVS = os.path.join(os.environ["READERS_HOME"], "venvs")
HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")
child = None


def stop(*_):
    if child is not None:
        os.kill(child.pid, signal.SIGTERM)
    sys.exit(143)


def psql(*args):
    command = [f"{PG_BIN}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *args, URL]
    env = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.strip()


def sql(statement):
    return psql("-c", statement)


def server_cpu():
    """CPU seconds that Postgres has used: the postmaster, its living and its dead children."""
    with open(f"/proc/{PG_PID}/task/{PG_PID}/children") as f:
        pids = f.read().split()
    total = 0
    for pid in [str(PG_PID), *pids]:
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(fields[i]) for i in ((11, 12, 13, 14) if pid == str(PG_PID) else (11, 12)))
    return total / TICK


def measured(what, round_, rows, command, log):
    """Run a command to its end; what it used."""
    global child
    load, server, began = os.getloadavg()[0], server_cpu(), time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode, child = os.waitstatus_to_exitcode(status), None
    wall = time.monotonic() - began
    if status:
        log.flush()
        with open(log.name, errors="replace") as f:
            sys.stderr.write("".join(f.readlines()[-30:]))
        sys.exit(f"bench: {what} ended with {os.waitstatus_to_exitcode(status)}; the end of its log is above")
    figures = {
        "what": what,
        "round": round_,
        "rows": rows,
        "wall_s": wall,
        "rows_per_s": rows / wall,
        "cpu_s_per_million": (usage.ru_utime + usage.ru_stime) / rows * 1e6,
        "server_cpu_s_per_million": (server_cpu() - server) / rows * 1e6,
        "max_rss_mib": usage.ru_maxrss / 1024,
        "load": load,
    }
    print(
        f"{what:<44}{round_:>3}{load:>7.2f}{wall:>9.1f}{figures['rows_per_s']:>12,.0f}"
        f"{figures['cpu_s_per_million']:>10.2f}{figures['server_cpu_s_per_million']:>10.2f}"
        f"{figures['max_rss_mib']:>9.0f}",
        flush=True,
    )
    return figures


def heading(text):
    print(f"\n{text}\n{'':<44}{'#':>3}{'load':>7}{'wall s':>9}{'rows/s':>12}{'CPU s/M':>10}{'server':>10}{'RSS MiB':>9}")


def ratios(figures, ours):
    def best(what):
        return min(f["cpu_s_per_million"] for f in figures if f["what"] == what)

    others = dict.fromkeys(f["what"] for f in figures if f["what"] != ours)
    for other in others:
        print(f"  {ours} / {other}: {best(ours) / best(other):.2f} of its CPU a row (best turns)")


def configure(folder, name, merge="rewrite"):
    """A configuration of one source; its path."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    path = os.path.join(folder, f"{name}.toml")
    with open(path, "w") as f:
        f.write(
            f'[lake]\nurl = "{folder}/lake"\nstate_dir = "{folder}/state"\n\n'
            f'[http]\nlisten = "127.0.0.1:{port}"\n\n'
            f'[source.{name}.postgres]\nurl = "{URL}"\ntables = ["public.orders"]\n'
            f'[source.{name}.table."public.orders"]\nmerge = "{merge}"\n'
        )
    return path


def forget(name):
    """The source's slot and publication, so that they keep no log."""
    sql(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'lakeward_{name}'")
    sql(f"DROP PUBLICATION IF EXISTS lakeward_{name}")


def snapshot(a, log):
    heading(f"W1: the snapshot of {a.rows:,} rows")
    figures = []
    for r in range(1, a.rounds + 1):
        name = f"w1_{r}"
        config = configure(a.dir, name)
        run = [LAKEWARD, "run", "--config", config, "--until-current"]
        figures.append(measured("lakeward run --until-current", r, a.rows, run, log))
        forget(name)
        if r < a.rounds:
            shutil.rmtree(os.path.join(a.dir, "lake", name))
        copy = [f"{PG_BIN}/psql", "-Xqc", "COPY orders TO STDOUT (FORMAT binary)", URL]
        figures.append(measured("COPY binary to /dev/null", r, a.rows, copy, log))
        out = os.path.join(a.dir, "script")
        script = [f"{VENVS}/deltalake/bin/python", f"{HERE}/script.py", f"{PG_BIN}/psql", URL, out]
        figures.append(measured("COPY csv, pyarrow, write_deltalake", r, a.rows, script, log))
        shutil.rmtree(out)
    ratios(figures, "lakeward run --until-current")
    if a.verify:
        verify(a, f"w1_{a.rounds}")
    return figures


def changes():
    return int(sql("SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'orders'"))


def stream(a, log):
    name = "w3"
    config = configure(a.dir, name, a.merge)
    run = [LAKEWARD, "run", "--config", config, "--until-current"]
    heading("W3: the snapshot before it (not a figure)")
    measured("lakeward run --until-current", 0, a.rows, run, log)
    sql("SELECT pg_create_logical_replication_slot('bench_recv', 'pgoutput')")
    figures = []
    for r in range(1, a.rounds + 1):
        before = changes()
        sizes = {"n": a.rows, "u": a.rows // 5, "d": a.rows // 25, "i": a.rows // 25, "seed": 6 + r}
        psql(*[x for k, v in sizes.items() for x in ("-v", f"{k}={v}")], "-f", f"{HERE}/w3.sql")
        rows, end = changes() - before, sql("SELECT pg_current_wal_lsn()")
        if r == 1:
            heading(f"W3: catching up with {rows:,} changes in transactions of 100, merge = {a.merge}")
        figures.append(measured("lakeward run --until-current", r, rows, run, log))
        options = ["-o", "proto_version=1", "-o", f"publication_names=lakeward_{name}"]
        receive = [f"{PG_BIN}/pg_recvlogical", "-d", URL, "-S", "bench_recv", "--start", "-f", "/dev/null"]
        receive += [*options, f"--endpos={end}", "--no-loop"]
        figures.append(measured("pg_recvlogical to /dev/null", r, rows, receive, log))
    ratios(figures, "lakeward run --until-current")
    sql("SELECT pg_drop_replication_slot('bench_recv')")
    if a.verify:
        verify(a, name)
    forget(name)
    return figures


def verify(a, name):
    compare = os.path.join(HERE, "..", "tests", "demo", "compare.py")
    command = [f"{VENVS}/duckdb/bin/python", compare, "--psql", f"{PG_BIN}/psql", "--url", URL]
    subprocess.run([*command, "--lake", f"{a.dir}/lake", "--source", name], check=True, env={**os.environ, "TMPDIR": a.dir})


def main():
    ap = argparse.ArgumentParser(allow_abbrev=False)
    ap.add_argument("--dir", required=True)
    ap.add_argument("--rows", type=int, default=5_000_000)
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--only", choices=["w1", "w3"])
    ap.add_argument("--merge", choices=["rewrite", "deletion-vectors"], default="rewrite")
    ap.add_argument("--verify", action="store_true")
    ap.add_argument("--json")
    ap.add_argument("--keep", action="store_true")
    a = ap.parse_args()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, stop)
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    print(f"{os.cpu_count()} x {model}; load {os.getloadavg()[0]:.2f}; {sql('SHOW server_version')}")
    print(f"making {a.rows:,} rows", flush=True)
    psql("-v", f"n={a.rows}", "-f", f"{HERE}/w1.sql")
    figures = {}
    with open(os.path.join(a.dir, "log"), "w") as log:
        if a.only != "w3":
            figures["w1"] = snapshot(a, log)
        if a.only != "w1":
            figures["w3"] = stream(a, log)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(figures, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
