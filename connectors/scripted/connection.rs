//! Connections to a server: where faults happen.

use super::faults::{Fate, SILENCE};
use super::server::{Shared, lock};
use crate::error::{Error, Result};

/// A connection to a server.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) server: Shared,
    generation: u64,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(server: &Shared) -> Result<Self> {
        let generation = lock(server).connect()?;
        let connection = Self { server: server.clone(), generation };
        connection.wait().await?;
        Ok(connection)
    }

    /// A place where one waits for the server: anything may have happened meanwhile.
    pub(super) async fn wait(&self) -> Result<()> {
        let fate = lock(&self.server).fate();
        match fate {
            Fate::Nothing => {}
            Fate::Late(delay) => tokio::time::sleep(delay).await,
            Fate::Silent => {
                tokio::time::sleep(SILENCE).await;
                return Err(Error::unavailable("the server is silent"));
            }
            Fate::Lost => return Err(Error::unavailable("the connection was lost")),
        }
        self.alive()
    }

    /// An error when the connection was broken.
    pub(super) fn alive(&self) -> Result<()> {
        match lock(&self.server).connect()? == self.generation {
            true => Ok(()),
            false => Err(Error::unavailable("the connection was broken")),
        }
    }
}
