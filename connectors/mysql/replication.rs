//! Asking a server for its log (MySQL documentation, "COM_BINLOG_DUMP_GTID"; MariaDB documentation,
//! "COM_BINLOG_DUMP" and "Slave Connect State").

use std::time::Duration;

use super::connection::{Connection, Flavor, literal};
use super::event::Checksums;
use super::gtid::Gtids;
use super::position::{Place, Set};
use super::server::Server;
use crate::error::{Error, Result};

/// How often the server says that it is there when nothing happens.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A connection that has been told to send the log.
pub struct Dump {
    /// It sends nothing but events from here on.
    pub connection: Connection,
    /// Whether they end in a checksum, until the first description of the format says.
    pub checksums: Checksums,
}

/// Who reads the log: what the server knows its replicas by.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `server_id`, which no other replica may have.
    pub server_id: u32,
    /// The UUID of a replica, made of the source's name: a connection of ours that the server still
    /// holds open is told from another reader's.
    pub uuid: String,
}

impl Identity {
    /// The identity of the reader of the source called `name`, with a chosen number or one made of
    /// the name.
    pub fn new(name: &str, server_id: Option<u32>) -> Self {
        // FNV-1a: the same on every machine and in every version.
        let hash = |seed: u64| {
            name.bytes()
                .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        };
        let (a, b) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15));
        // Above a thousand million, where people don't count; never 0.
        let derived = 1_000_000_000 + (a % 3_000_000_000) as u32;
        let uuid = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a as u32,
            a >> 32 & 0xffff,
            a >> 48,
            b & 0xffff,
            b >> 16
        );
        Self { server_id: server_id.unwrap_or(derived), uuid }
    }
}

/// Asks for everything that `from` does not contain.
///
/// # Errors
/// When the server can't be reached or refuses. That it no longer has the log is said by the first
/// packet instead.
pub async fn dump(server: &Server, identity: &Identity, from: &Place) -> Result<Dump> {
    let mut connection = server.connect().await?;
    let doing = "asking for the log";
    let how = connection.text(doing, "SELECT @@GLOBAL.binlog_checksum").await?;
    let period = HEARTBEAT.as_nanos();
    let uuid = &identity.uuid;
    // Both spellings: which one is read depends on the server's version.
    let settings = format!(
        "SET @master_binlog_checksum = '{how}', @source_binlog_checksum = '{how}', \
         @master_heartbeat_period = {period}, @source_heartbeat_period = {period}, \
         @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"
    );
    connection.run(doing, &settings).await?;
    // While the lake is slow nothing is read, and the server has to put up with it.
    connection.run(doing, "SET SESSION net_write_timeout = 31536000").await?;
    register(&mut connection, server, identity).await?;
    let request = match from.resume() {
        Set::MySql(set) => by_gtid(identity, set),
        Set::MariaDb(set) => {
            // 4: it understands GTIDs, and gets them instead of BEGIN.
            let state = format!(
                "SET @mariadb_slave_capability = 4, @slave_connect_state = {}, \
                 @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0",
                literal(&set.to_string())
            );
            connection.run(doing, &state).await?;
            by_place(identity)
        }
    };
    if connection.flavor != from.flavor() {
        return Err(Error::gap("the server is of another kind than the one that the lake knows")
            .with("server", connection.flavor)
            .with("lake", from));
    }
    let checksums = Checksums(how.eq_ignore_ascii_case("CRC32"));
    connection.command(&request).await?;
    Ok(Dump { connection, checksums })
}

/// COM_REGISTER_SLAVE: the server lists us among its replicas.
async fn register(connection: &mut Connection, server: &Server, identity: &Identity) -> Result<()> {
    let mut request = vec![0x15];
    request.extend(identity.server_id.to_le_bytes());
    let name = server.reader_name.as_bytes();
    let name = name.get(..60).unwrap_or(name);
    request.push(name.len() as u8);
    request.extend(name);
    // No user, no password, no port, no rank, no master.
    request.extend([0; 12]);
    connection.command(&request).await?;
    connection.acknowledged("registering as a replica").await
}

/// COM_BINLOG_DUMP_GTID: flags, server_id, no file, position 4, and the set.
fn by_gtid(identity: &Identity, set: &Gtids) -> Vec<u8> {
    const THROUGH_GTID: u16 = 4;
    let mut request = vec![0x1e];
    request.extend(THROUGH_GTID.to_le_bytes());
    request.extend(identity.server_id.to_le_bytes());
    request.extend(0_u32.to_le_bytes());
    request.extend(4_u64.to_le_bytes());
    let set = set.encode();
    request.extend((set.len() as u32).to_le_bytes());
    request.extend(set);
    request
}

/// COM_BINLOG_DUMP: position 4, flags, server_id, no file. Where to begin stands in a variable.
fn by_place(identity: &Identity) -> Vec<u8> {
    let mut request = vec![0x12];
    request.extend(4_u32.to_le_bytes());
    request.extend(0_u16.to_le_bytes());
    request.extend(identity.server_id.to_le_bytes());
    request
}

/// What the server calls its list of replicas.
pub fn list_of_replicas(connection: &Connection) -> &'static str {
    match connection.flavor == Flavor::MySql && connection.version >= [8, 0, 22] {
        true => "SHOW REPLICAS",
        false => "SHOW SLAVE HOSTS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_known_by_its_source() {
        let (shop, other) = (Identity::new("shop", None), Identity::new("shop2", None));
        assert_ne!(shop.server_id, other.server_id);
        assert_eq!(shop.server_id, Identity::new("shop", None).server_id);
        assert_eq!(Identity::new("shop", Some(7)).server_id, 7);
        assert!(super::super::gtid::parse_uuid(&shop.uuid).is_some());
        assert_eq!(shop.uuid.len(), 36);
    }

    #[test]
    fn a_request_has_the_length_it_says() {
        let set = Gtids::parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5").unwrap();
        let request = by_gtid(&Identity::new("shop", None), &set);
        assert_eq!(request.len(), 1 + 2 + 4 + 4 + 8 + 4 + set.encode().len());
        assert_eq!(by_place(&Identity::new("shop", None)).len(), 11);
    }
}
