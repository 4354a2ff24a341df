//! The task that owns the stream's socket ("Streaming Replication Protocol", START_REPLICATION).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::Message as Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};

use super::connection::Server;
use super::fault::{self, Reply};
use super::position::Lsn;
use super::replication::{CopyBoth, header, notice_reply, reply};
use super::stream::{Batch, Message, Told};
use crate::error::{Error, Result};
use crate::socket::Socket;

/// What may lie between the socket and whoever decodes.
const QUEUE: usize = 16 << 20;
/// How much is read at one go.
const READ: usize = 256 << 10;
/// How long we let the socket fill after it gave little. The server sends every row by itself, and
/// being woken for each costs several times what decoding it does.
const GATHER: Duration = Duration::from_millis(1);
/// How often the server is told where we are, and asked where it is when it says nothing.
const REPORT: Duration = Duration::from_secs(10);
/// How long the server may say nothing before we look whether it still serves us.
const SILENCE: Duration = Duration::from_secs(40);
/// How long that look may take.
const LOOK: Duration = Duration::from_secs(8);
/// A message can't be longer: a field of a row is at most 1 GB, a change at most two rows.
const LONGEST: usize = i32::MAX as usize;
/// Seconds from 1970 to 2000, where Postgres' clock begins.
const EPOCH: u64 = 946_684_800;

pub(super) struct Pump {
    socket: Socket,
    input: BytesMut,
    pid: i32,
    server: Server,
    told: Arc<Told>,
    queue: UnboundedSender<Result<Batch>>,
    room: Arc<Semaphore>,
    clock: Interval,
    /// When the server last said anything.
    heard: Instant,
    /// A keepalive asked for an answer.
    asked: bool,
}

impl Pump {
    pub(super) fn new(
        connection: CopyBoth,
        server: Server,
        told: Arc<Told>,
        queue: UnboundedSender<Result<Batch>>,
    ) -> Self {
        let CopyBoth { socket, input, pid } = connection;
        let mut clock = interval(REPORT);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let room = Arc::new(Semaphore::new(QUEUE));
        let heard = Instant::now();
        Self { socket, input, pid, server, told, queue, room, clock, heard, asked: false }
    }

    /// Runs until the connection ends, and hands over why it did.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.pump().await {
            // Nobody listens any more when the stream has been dropped.
            let _ = self.queue.send(Err(error));
        }
    }

    async fn pump(&mut self) -> Result<()> {
        let mut scarce = false;
        loop {
            let (messages, end) = self.parse();
            if self.asked {
                self.report(false).await?;
            }
            if !messages.is_empty() {
                self.deliver(messages).await?;
            }
            end?;
            // Only when little is left: asking for the whole each time would move to a new buffer
            // each time.
            if self.input.capacity() - self.input.len() < READ / 4 {
                self.input.reserve(READ);
            }
            let gather = async {
                if scarce {
                    self.socket.rest()?;
                    sleep(GATHER).await;
                }
                self.socket.read_buf(&mut self.input).await
            };
            tokio::select! {
                read = gather => {
                    self.heard = Instant::now();
                    scarce = match read {
                        Ok(0) => return Err(closed()),
                        // A keepalive by itself doesn't begin a burst.
                        Ok(bytes) => (64..READ / 4).contains(&bytes),
                        Err(error) => return Err(lost(error)),
                    };
                }
                () = self.told.changed.notified() => self.report(false).await?,
                _ = self.clock.tick() => self.tick().await?,
            }
        }
    }

    /// Waits for room in the queue, meanwhile keeping the connection alive.
    async fn deliver(&mut self, messages: VecDeque<Message>) -> Result<()> {
        let room = self.wait_for_room(size(&messages)).await?;
        self.queue.send(Ok(Batch { messages, room: Some(room) })).map_err(|_| closed())
    }

    async fn wait_for_room(&mut self, size: usize) -> Result<OwnedSemaphorePermit> {
        let size = u32::try_from(size.min(QUEUE)).unwrap_or(u32::MAX);
        let acquire = self.room.clone().acquire_many_owned(size);
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                room = &mut acquire => {
                    // Nothing was read for as long as we waited: that was not the server's silence.
                    self.heard = Instant::now();
                    return room.map_err(|_| closed());
                }
                () = self.told.changed.notified() => self.report(false).await?,
                _ = self.clock.tick() => self.report(false).await?,
            }
        }
    }

    async fn tick(&mut self) -> Result<()> {
        let silent = self.heard.elapsed();
        if silent > SILENCE {
            self.look(silent).await?;
        }
        self.report(silent >= REPORT / 2).await
    }

    /// Asks over another connection whether the server still serves this one. It may be silent for
    /// long while it works through a transaction of which it has nothing to send.
    async fn look(&self, silent: Duration) -> Result<()> {
        const SQL: &str = "SELECT 1 FROM pg_catalog.pg_replication_slots WHERE active_pid = $1";
        let served = timeout(LOOK, async {
            let client = self.server.client().await?;
            let row = client.query_opt(SQL, &[&self.pid]).await;
            row.map_err(|error| fault::query("looking for the walsender", error))
        });
        if matches!(served.await, Ok(Ok(Some(_)))) {
            tracing::warn!(pid = self.pid, ?silent, "the server says nothing, but is at work");
            return Ok(());
        }
        Err(Error::unavailable("the connection is silent")
            .with("seconds", silent.as_secs())
            .with("walsender", self.pid))
    }

    /// Sends a standby status update: what is durable counts as written, flushed and applied.
    async fn report(&mut self, ask: bool) -> Result<()> {
        self.asked = false;
        let ask = self.told.ask.swap(false, Ordering::Relaxed) || ask;
        let update = status_update(self.told.durable.load(Ordering::Relaxed), ask);
        let sent = timeout(SILENCE, async {
            self.socket.write_all(&update).await?;
            self.socket.flush().await
        });
        match sent.await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(Error::unavailable("the connection takes nothing any more")),
        }
    }

    /// Takes all whole messages out of what has been read; with the reason when they are the last.
    fn parse(&mut self) -> (VecDeque<Message>, Result<()>) {
        let mut messages = VecDeque::new();
        loop {
            match take(&mut self.input) {
                Ok(None) => return (messages, Ok(())),
                Ok(Some(Frame { message, asks })) => {
                    messages.extend(message);
                    self.asked |= asks;
                }
                Err(error) => return (messages, Err(error)),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    message: Option<Message>,
    asks: bool,
}

impl Frame {
    const NOTHING: Self = Self { message: None, asks: false };
}

/// The first whole message of `input`.
fn take(input: &mut BytesMut) -> Result<Option<Frame>> {
    let Some((tag, length)) = header(input) else {
        return Ok(None);
    };
    if !(4..=LONGEST).contains(&length) {
        return Err(garbled());
    }
    if input.len() <= length {
        input.reserve(length + 1 - input.len());
        return Ok(None);
    }
    match tag {
        b'd' => {
            let mut frame = input.split_to(length + 1).freeze();
            frame.advance(5);
            copy_data(frame).map(Some)
        }
        // CopyDone: an orderly shutdown of the server.
        b'c' => Err(closed()),
        _ => match Backend::parse(input) {
            Ok(Some(Backend::ErrorResponse(body))) => {
                Err(fault::log("reading the log", reply(&body)))
            }
            Ok(Some(Backend::NoticeResponse(body))) => notice(notice_reply(&body)),
            Ok(Some(Backend::ParameterStatus(_))) => Ok(Some(Frame::NOTHING)),
            _ => Err(garbled()),
        },
    }
}

/// What a warning means. From 18 on the server only warns ("skipped loading publication") when it
/// comes to a place of the log where the publication doesn't exist, and skips all its changes.
fn notice(reply: Reply) -> Result<Option<Frame>> {
    if reply.code == "55000" {
        return Err(Error::gap("the log holds changes from a time without the publication")
            .remedy("the tables are read again, each by its policy")
            .caused_by(reply));
    }
    tracing::info!(notice = %reply, "the server says");
    Ok(Some(Frame::NOTHING))
}

/// XLogData (`w`: start, end, clock, data) and Primary keepalive message (`k`: end, clock, whether
/// an answer is wanted).
fn copy_data(mut body: bytes::Bytes) -> Result<Frame> {
    const DATA: usize = 1 + 8 + 8 + 8;
    match body.first() {
        Some(b'w') if body.len() > DATA => {
            body.advance(DATA);
            Ok(Frame { message: Some(Message::Data(body)), asks: false })
        }
        Some(b'k') if body.len() == 1 + 8 + 8 + 1 => {
            body.advance(1);
            let reached = Lsn(body.get_u64());
            body.advance(8);
            Ok(Frame { message: Some(Message::Alive(reached)), asks: body.get_u8() != 0 })
        }
        _ => Err(garbled()),
    }
}

/// A CopyData message with a Standby status update in it.
fn status_update(durable: u64, ask: bool) -> [u8; 39] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = now.saturating_sub(Duration::from_secs(EPOCH)).as_micros() as u64;
    let mut update = [0; 39];
    let fields = [durable, durable, durable, clock];
    let bytes = (b"d\0\0\0\x26r".iter().copied())
        .chain(fields.into_iter().flat_map(u64::to_be_bytes))
        .chain([u8::from(ask)]);
    update.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    update
}

/// What messages take in the queue.
fn size(messages: &VecDeque<Message>) -> usize {
    let data = messages.iter().map(|message| match message {
        Message::Data(payload) => payload.len(),
        Message::Alive(_) => 0,
    });
    data.sum::<usize>() + messages.len() * size_of::<Message>()
}

fn lost(error: io::Error) -> Error {
    fault::io("reading the log", error)
}

fn closed() -> Error {
    Error::unavailable("the server closed the connection")
}

fn garbled() -> Error {
    Error::unavailable("the server sent what is no message of a log")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'd'];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn data(payload: &[u8]) -> Vec<u8> {
        frame(&[b"w", &[0; 24][..], payload].concat())
    }

    fn alive(reached: u64, asks: u8) -> Vec<u8> {
        frame(&[b"k", &reached.to_be_bytes()[..], &[0; 8], &[asks]].concat())
    }

    #[test]
    fn messages_are_taken_whole_and_in_order() {
        let bytes = [data(b"B1"), alive(77, 1), data(b"C2"), alive(78, 0)].concat();
        for split in 0..bytes.len() {
            let (mut input, mut taken) = (BytesMut::new(), Vec::new());
            for part in [&bytes[..split], &bytes[split..]] {
                input.extend_from_slice(part);
                while let Some(frame) = take(&mut input).unwrap() {
                    taken.push(frame);
                }
            }
            let data = |text: &'static [u8]| Message::Data(text.into());
            let messages: Vec<_> = taken.iter().filter_map(|frame| frame.message.clone()).collect();
            let wanted =
                [data(b"B1"), Message::Alive(Lsn(77)), data(b"C2"), Message::Alive(Lsn(78))];
            assert_eq!(messages, wanted, "split at {split}");
            let asks: Vec<_> = taken.iter().map(|frame| frame.asks).collect();
            assert_eq!(asks, [false, true, false, false]);
        }
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        let bodies: [&[u8]; 6] = [b"", b"w", &[b'w'; 25], b"k", b"x1234567890123456", &[b'k'; 19]];
        for body in bodies {
            let error = take(&mut BytesMut::from(&frame(body)[..])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{body:?}");
        }
        assert!(take(&mut BytesMut::from(&b"d\0\0\0\x03"[..])).is_err());
        assert!(take(&mut BytesMut::from(&b"d\xff\xff\xff\xff"[..])).is_err());
        assert!(take(&mut BytesMut::from(&b"Q\0\0\0\x04"[..])).is_err());
        assert!(take(&mut BytesMut::from(&b"c\0\0\0\x04"[..])).is_err());
    }

    #[test]
    fn an_error_of_the_server_keeps_its_code() {
        let body = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
        let mut bytes = vec![b'E'];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        let error = take(&mut BytesMut::from(&bytes[..])).unwrap_err();
        assert!(fault::is(&error, "57P01") && error.kind() == ErrorKind::Unavailable);
    }

    #[test]
    fn a_status_update_is_as_the_protocol_says() {
        let update = status_update(0x0102, true);
        assert_eq!(update[..6], *b"d\0\0\0\x26r");
        for field in update[6..30].chunks(8) {
            assert_eq!(field, [0, 0, 0, 0, 0, 0, 1, 2]);
        }
        assert_eq!(update[38], 1);
        assert_eq!(status_update(1, false)[38], 0);
    }
}
