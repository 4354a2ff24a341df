//! Metrics come to an OpenTelemetry collector, also when it did not listen at first.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::alert::hook;
use crate::support::jobs::Job;
use crate::support::scene::{CURRENT, Scene, Test, check, has, has_not, trials};
use crate::support::{Context, Res, Server, Store};

const TESTS: &[Test] = &[("metrics_are_posted", posted)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::otlp", TESTS, &[Server::Pg15], select)
}

fn posted(server: Server) -> Res<()> {
    let sql = "create table t(id int primary key); insert into t select generate_series(1, 7)";
    let scene = Scene::new(server, Store::Local, "otlp", sql)?;
    let (endpoint, bodies) = hook("/hidden-path", &["503 Later", "503 Later"])?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    let otlp = format!(
        "[otlp]\nendpoint = {endpoint:?}\ninterval = \"1s\"\n\
         headers = {{ authorization = \"hidden-key\" }}\n"
    );
    fs::write(scene.setup.config(), format!("{text}\n{otlp}")).context("the configuration")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    let mut rows = Value::Null;
    // The first two are refused.
    for number in 0..40 {
        let body = bodies.recv_timeout(Duration::from_secs(30)).context("nothing was posted")?;
        let request: Value = serde_json::from_str(&body).context("what was posted")?;
        let metrics = &request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let metric = |name: &str| {
            metrics.as_array().into_iter().flatten().find(|m| m["name"] == name).cloned()
        };
        let Some(found) = metric("lakeward_rows") else { continue };
        rows = found["gauge"]["dataPoints"][0].clone();
        let flushes = metric("lakeward_flush_seconds").unwrap_or_default();
        let flushed = &flushes["histogram"]["dataPoints"][0]["count"];
        if number > 2 && rows["asInt"] == "7" && flushed.as_str().is_some_and(|count| count != "0")
        {
            break;
        }
    }
    check(rows["asInt"] == "7", || format!("{rows}"))?;
    let labels = rows["attributes"].to_string();
    has(&labels, &scene.source)?;
    has(&labels, "public.t")?;
    daemon.stop(&scene.setup)?;
    let log = scene.setup.log_text()?;
    let refusals = log.matches("the collector did not take metrics").count();
    check(refusals == 1, || format!("{refusals} times:\n{log}"))?;
    has(&log, "the collector takes metrics")?;
    has_not(&log, "hidden-")
}
