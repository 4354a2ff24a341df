//! Reading the log and acknowledging it.

use std::time::{Duration, Instant};

use super::*;
use crate::ErrorKind;
use crate::source::Position;

const TABLE: &str = "create table t (id int primary key, v text)";

#[test]
fn only_what_was_acknowledged_is_confirmed() {
    on_servers("ack", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let oldest = made.established.oldest;
        let mut stream = made.stream(oldest).await;
        for id in 1..=3 {
            let insert = format!("insert into t values ({id}, 'x'), ({}, 'y')", id + 10);
            made.admin.batch_execute(&insert).await.unwrap();
        }
        let mut said = Said::default();
        said.read(&mut stream, |said| said.commits.len() == 3).await;
        assert_eq!(said.changes(), 6);
        assert!(said.begun.iter().zip(&said.commits).all(|(begun, end)| end.contains(begun)));
        assert!(!said.commits[0].contains(&said.begun[1]));
        stream.nudge();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bed.confirmed(&made.admin).await, oldest);

        stream.acknowledge(&said.commits[1]);
        let wanted = said.commits[1];
        until("confirmation", || async { bed.confirmed(&made.admin).await == wanted }).await;
        stream.acknowledge(&said.commits[0]);
        stream.nudge();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bed.confirmed(&made.admin).await, wanted);

        // From a position beyond what is confirmed only what follows comes.
        drop(stream);
        let mut stream = made.stream(said.commits[1]).await;
        let mut again = Said::default();
        again.read(&mut stream, |said| said.commits.len() == 1).await;
        assert_eq!((again.changes(), again.commits[0]), (2, said.commits[2]));
        drop(stream);

        // Before it there is nothing any more.
        let error = made.source.stream(&oldest, &made.tables).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Gap, "{error:?}");
    });
}

#[test]
fn a_stream_starts_beyond_what_is_confirmed() {
    on_servers("beyond", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let oldest = made.established.oldest;
        let mut stream = made.stream(oldest).await;
        made.admin.batch_execute("insert into t values (1)").await.unwrap();
        made.admin.batch_execute("insert into t values (2)").await.unwrap();
        let mut said = Said::default();
        said.read(&mut stream, |said| said.commits.len() == 2).await;
        drop(stream);
        let mut stream = made.stream(said.commits[0]).await;
        let mut again = Said::default();
        again.read(&mut stream, |said| !said.commits.is_empty()).await;
        assert_eq!(again.commits, said.commits[1..]);
        assert_eq!(bed.confirmed(&made.admin).await, oldest);
    });
}

#[test]
fn an_idle_database_lets_the_log_go() {
    on_servers("idle", |bed| async move {
        let mut made = bed.made(TABLE).await;
        made.admin.batch_execute("create table other (v text)").await.unwrap();
        let mut stream = made.stream(made.established.oldest).await;
        let fill = "insert into other select repeat('x', 200) from generate_series(1, 20000)";
        made.admin.batch_execute(fill).await.unwrap();
        let high = made.source.discover().await.unwrap().high;
        stream.nudge();
        let mut said = Said::default();
        let start = Instant::now();
        said.read(&mut stream, |said| said.progress.last().is_some_and(|at| at.covers(&high)))
            .await;
        assert!(start.elapsed() < Duration::from_secs(16), "{:?}", start.elapsed());
        assert!(said.progress.is_sorted() && said.changes() == 0);
        let last = *said.progress.last().unwrap();
        stream.acknowledge(&last);
        until("confirmation", || async { bed.confirmed(&made.admin).await == last }).await;

        // And by itself, without a nudge, within two reports.
        made.admin.batch_execute(fill).await.unwrap();
        let mut later = Said::default();
        later.read(&mut stream, |said| said.progress.last().is_some_and(|at| *at > last)).await;
    });
}

#[test]
fn a_slow_reader_keeps_its_connection_and_its_memory() {
    on_servers("slow", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let mut stream = made.stream(made.established.oldest).await;
        let fill = "insert into t select g, repeat('x', 1000) from generate_series(1, 100000) g";
        made.admin.batch_execute(fill).await.unwrap();
        let sent = "select (sent_lsn - (select confirmed_flush_lsn from pg_replication_slots \
                    where slot_name = $1))::float8, extract(epoch from now() - \
                    reply_time)::float8 from pg_stat_replication where pid = \
                    (select active_pid from pg_replication_slots where slot_name = $1)";
        tokio::time::sleep(Duration::from_secs(13)).await;
        let row = made.admin.query_one(sent, &[&bed.name]).await.unwrap();
        let silent: f64 = row.get(1);
        assert!(silent < 11.0, "nothing reported for {silent} s");
        let mut said = Said::default();
        said.read(&mut stream, |said| !said.commits.is_empty()).await;
        assert_eq!(said.changes(), 100_000);
    });
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    on_servers("speed", |bed| async move {
        let wide = "create table t (id bigint primary key, a int, b int, c text, d numeric(12,2), \
                    e timestamptz, f bool, g text)";
        let mut made = bed.made(wide).await;
        let fill = "insert into t select g, g, 7, 'some text ' || g, g / 100.0, now(), true, \
                    'more' from generate_series(1, 1000000) g";
        made.admin.batch_execute(fill).await.unwrap();
        let mut stream = made.stream(made.established.oldest).await;
        let (start, used) = (Instant::now(), cpu());
        let (mut messages, mut bytes) = (0u64, 0usize);
        loop {
            let super::super::stream::Message::Data(data) = stream.next().await.unwrap() else {
                continue;
            };
            messages += 1;
            bytes += data.len();
            if data.first() == Some(&b'C') {
                break;
            }
        }
        let (took, used) = (start.elapsed().as_secs_f64(), cpu() - used);
        let rate = messages as f64 / took;
        println!("{messages} messages, {bytes} B, {took:.2} s, {rate:.0}/s, {used:.2} CPU s");
    });
}

/// CPU seconds of this process, from `/proc/self/stat` at 100 ticks a second.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
