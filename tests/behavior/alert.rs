//! The webhook: told when something is wrong and when it is over, also when it did not listen at first.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::jobs::Job;
use crate::support::scene::{CURRENT, Scene, Test, check, has, has_not, trials};
use crate::support::{Context, Res, Server, Store};

const TESTS: &[Test] = &[("a_webhook_is_told", told)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::alert", TESTS, &[Server::Pg15], select)
}

/// A web server that gives these answers to the first messages and takes the others: its address, with
/// this path, and the messages.
pub(super) fn hook(path: &str, answers: &[&str]) -> Res<(String, Receiver<String>)> {
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
    let address = listener.local_addr().context("a port")?;
    let (send, bodies) = channel();
    std::thread::spawn(move || -> std::io::Result<()> {
        for number in 0.. {
            let (mut stream, _) = listener.accept()?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line)? > 2 {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let head = answers.get(number).map_or("200 OK", String::as_str);
            write!(stream, "HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            if send.send(String::from_utf8_lossy(&body).into_owned()).is_err() {
                break;
            }
        }
        Ok(())
    });
    Ok((format!("http://{address}{path}"), bodies))
}

fn told(server: Server) -> Res<()> {
    let sql =
        "create table t(id int primary key, v timestamp); insert into t values (1, '2020-01-01')";
    let scene = Scene::new(server, Store::Local, "webhook", sql)?;
    let (address, bodies) = hook("/hidden-path", &["503 Later"])?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    let text = format!("{text}\n[alert]\nwebhook = {address:?}\n");
    fs::write(scene.setup.config(), text).context("the configuration")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.pg.exec("insert into t values (7654321, '294276-12-31')")?;
    let next = || bodies.recv_timeout(Duration::from_secs(60)).context("no message");
    // Refused, then taken.
    for _ in 0..2 {
        let body = next()?;
        let value: serde_json::Value = serde_json::from_str(&body).context("a message")?;
        let text = value["text"].as_str().unwrap_or_default();
        has(text, &format!("Lakeward: {} public.t is stopped", scene.source))?;
        has_not(&body, "294276")?;
        has_not(&body, "7654321")?;
    }
    scene.pg.exec("delete from t where id = 7654321")?;
    let answer = scene.setup.command(&["snapshot", &scene.source, "public.t"])?;
    check(answer.code == Some(0), || answer.all())?;
    has(&next()?, "public.t is not stopped any more")?;
    has(&scene.setup.log_text()?, "the webhook did not take a message")?;
    has_not(&scene.setup.log_text()?, "hidden-path")?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.equal("t")
}
