"""What commands, the daemon and the server use."""

import os
import signal
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
child = None


def stop(*_):
    """The benchmark is told to end: so is the command that it waits for."""
    if child is not None:
        os.kill(child.pid, signal.SIGTERM)
    sys.exit(143)


def server_cpu(source):
    """CPU seconds that the server has used: its first process, the living and the dead children."""
    pid = os.environ[f"{source.server.upper()}_PID"]
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        pids = [pid, *f.read().split()]
    total = 0
    for one in pids:
        try:
            with open(f"/proc/{one}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(fields[i]) for i in ((11, 12, 13, 14) if one == pid else (11, 12)))
    return total / TICK


def disk_waits():
    """Seconds since the start of the machine in which some process waited for a disk; None where the kernel
    doesn't count them."""
    try:
        with open("/proc/pressure/io") as f:
            return int(f.readline().rsplit("total=", 1)[1]) / 1e6
    except OSError:
        return None


def used(source, what, command, log):
    """Runs a command to its end; what it used."""
    global child
    load, server, began = os.getloadavg()[0], server_cpu(source), time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode, child = os.waitstatus_to_exitcode(status), None
    if status:
        log.flush()
        with open(log.name, errors="replace") as f:
            sys.stderr.write("".join(f.readlines()[-30:]))
        sys.exit(f"bench: {what} ended with {os.waitstatus_to_exitcode(status)}; the end of its log is above")
    return {
        "wall_s": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "server_cpu_s": server_cpu(source) - server,
        "max_rss_mib": usage.ru_maxrss / 1024,
        "load": load,
    }


def heading(text):
    print(f"\n{text}\n{'':<44}{'#':>3}{'load':>7}{'wall s':>9}{'rows/s':>12}{'CPU s/M':>10}{'server':>10}{'RSS MiB':>9}")


def measured(source, what, round_, rows, command, log):
    """Runs a command to its end; what it used for each of so many rows, as a line."""
    of_all = used(source, what, command, log)
    figures = {
        "what": what,
        "round": round_,
        "rows": rows,
        "wall_s": of_all["wall_s"],
        "rows_per_s": rows / of_all["wall_s"],
        "cpu_s_per_million": of_all["cpu_s"] / rows * 1e6,
        "server_cpu_s_per_million": of_all["server_cpu_s"] / rows * 1e6,
        "max_rss_mib": of_all["max_rss_mib"],
        "load": of_all["load"],
    }
    print(
        f"{what:<44}{round_:>3}{figures['load']:>7.2f}{figures['wall_s']:>9.1f}{figures['rows_per_s']:>12,.0f}"
        f"{figures['cpu_s_per_million']:>10.2f}{figures['server_cpu_s_per_million']:>10.2f}"
        f"{figures['max_rss_mib']:>9.0f}",
        flush=True,
    )
    return figures
