//! The task that owns the stream's connection: reads packets whether or not anybody waits, verifies
//! checksums, expands what is compressed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::event::{Checksums, Event, Payload, expand, kind};
use super::fault::{self, Reply};
use super::replication::{Dump, HEARTBEAT};
use super::stream::Batch;
use crate::error::{Error, Result};

/// What may lie between the socket and whoever decodes.
const QUEUE: usize = 16 << 20;
/// So much is handed over at one go.
const BATCH: usize = 1 << 20;
/// How long we let the socket fill after it gave little. The server sends every event by itself, and
/// being woken for each costs several times what decoding it does.
const GATHER: Duration = Duration::from_millis(1);
/// How long the server may say nothing, not even that it is there.
const SILENCE: Duration = Duration::from_secs(30);

pub(super) struct Pump {
    connection: Connection,
    checksums: Checksums,
    queue: UnboundedSender<Result<Batch>>,
    room: Arc<Semaphore>,
    /// What is to be handed over next.
    ready: VecDeque<Event>,
    size: usize,
}

impl Pump {
    pub(super) fn new(dump: Dump, queue: UnboundedSender<Result<Batch>>) -> Self {
        debug_assert!(SILENCE > 3 * HEARTBEAT);
        Self {
            connection: dump.connection,
            checksums: dump.checksums,
            queue,
            room: Arc::new(Semaphore::new(QUEUE)),
            ready: VecDeque::new(),
            size: 0,
        }
    }

    /// Runs until the connection ends, and hands over why it did.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.pump().await {
            // What came before it counts.
            let _ = self.deliver().await;
            // Nobody listens any more when the stream has been dropped.
            let _ = self.queue.send(Err(error));
        }
    }

    async fn pump(&mut self) -> Result<()> {
        let mut scarce = false;
        loop {
            while let Some(packet) = self.connection.take_packet() {
                self.packet(packet).await?;
            }
            self.deliver().await?;
            let gather = async {
                if scarce {
                    self.connection.socket.rest()?;
                    sleep(GATHER).await;
                }
                self.connection.fill().await
            };
            let read = match timeout(SILENCE, gather).await {
                Ok(read) => read.map_err(|error| fault::io("reading the log", error))?,
                Err(_) => {
                    return Err(Error::unavailable("the connection is silent")
                        .with("seconds", SILENCE.as_secs()));
                }
            };
            // A heartbeat by itself doesn't begin a burst.
            scarce = (256..16 << 10).contains(&read);
        }
    }

    /// Takes up one packet of the log.
    async fn packet(&mut self, mut packet: Bytes) -> Result<()> {
        match packet.first() {
            Some(0) => {}
            Some(0xff) => return Err(fault::log(Reply::parse(&packet))),
            _ => return Err(Error::unavailable("the server has ended the log")),
        }
        let event = Event::parse(packet.split_off(1), &mut self.checksums)?;
        if event.kind != kind::TRANSACTION_PAYLOAD {
            return self.take_up(expand(event)?).await;
        }
        let mut payload = Payload::open(&event.body)?;
        while let Some(inner) = payload.next_event()? {
            self.take_up(inner).await?;
        }
        Ok(())
    }

    async fn take_up(&mut self, event: Event) -> Result<()> {
        self.size += event.body.len() + size_of::<Event>();
        self.ready.push_back(event);
        if self.size >= BATCH { self.deliver().await } else { Ok(()) }
    }

    /// Hands over what is ready, once there is room for it in the queue.
    async fn deliver(&mut self) -> Result<()> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let room = self.wait_for_room().await?;
        let events = std::mem::take(&mut self.ready);
        self.size = 0;
        let batch = Batch { events, room: Some(room) };
        self.queue.send(Ok(batch)).map_err(|_| closed())
    }

    async fn wait_for_room(&self) -> Result<OwnedSemaphorePermit> {
        let size = u32::try_from(self.size.min(QUEUE)).unwrap_or(u32::MAX);
        self.room.clone().acquire_many_owned(size).await.map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::unavailable("nobody reads the log any more")
}
