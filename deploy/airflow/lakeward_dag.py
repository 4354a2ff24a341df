"""Brings the lake up to date every quarter of an hour, for those who don't want a daemon that runs.

`lakeward run --until-current --json` reads everything that was committed when it began, and ends. Its
log is on stderr; on stdout is one JSON object, an entry a source:

    {"shop": {"error": null,
              "stopped": {"public.orders": "column total of row id=7 holds 'NaN', …"},
              "tables": {"public.customers": {"rows": 5000, "read": 0, "changes": 120}}}}

`rows` are those that the table has now, `read` those that a snapshot read in this run, `changes` what the
log brought.

Exit status:

    0  every table holds at least what was committed at the start
    1  something that may pass: a server or the store does not answer, or a table stopped (a new run
       reads it again). The task is tried again.
    2  something has to be changed first: the configuration, a right, a setting of the server, or
       another Lakeward that writes the same source. The task fails at once. Where the configuration
       itself is at fault, stdout is empty and stderr names every line.

A run may be killed at any moment: the next one goes on where the lake ends. Only one may run at a time.
Postgres keeps its log for the slot between two runs: watch the disk when you pause the DAG.
"""

import json
import os
import subprocess
from datetime import datetime, timedelta

from airflow.exceptions import AirflowException, AirflowFailException

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

LAKEWARD = os.environ.get("LAKEWARD", "lakeward")
CONFIG = os.environ.get("LAKEWARD_CONFIG", "/etc/lakeward/config.toml")


@dag(
    schedule=timedelta(minutes=15),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["lakeward"],
    doc_md=__doc__,
)
def lakeward():
    @task(
        retries=4,
        retry_delay=timedelta(minutes=1),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=15),
        # A first run reads all rows; killed, the next one goes on with what is left of them.
        execution_timeout=timedelta(hours=6),
    )
    def until_current():
        command = [LAKEWARD, "run", "--config", CONFIG, "--until-current", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate()
        finally:
            # The task is being stopped: Lakeward flushes and commits, for which it takes 9 s at most.
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
        sources = json.loads(output) if output.strip() else {}
        wrong = []
        for name, source in sources.items():
            if source["error"]:
                wrong.append(f"{name}: {source['error']}")
            wrong += [f"{name}: {table} is stopped: {why}" for table, why in source["stopped"].items()]
        summary = "\n".join(wrong) or "see the log of the task"
        if process.returncode == 2:
            raise AirflowFailException(f"lakeward can't go on until this is mended:\n{summary}")
        if process.returncode != 0:
            raise AirflowException(f"lakeward ended with {process.returncode}:\n{summary}")
        return sources

    until_current()


lakeward()
