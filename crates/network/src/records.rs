//! What is kept in the store's database: networks, attached containers, and the addresses and ports they hold.
//!
//! The documents say everything; the tables of addresses and ports say nothing new, but they make the database itself
//! refuse to hand the same one out twice: addresses by their primary key, ports, which may be ranges, by a look at what
//! overlaps in the same transaction.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spec::Id;
use store::rusqlite::{self, Transaction, params};
use store::{Db, DbError};

use crate::error::Error;
use crate::model::{DnsConfig, Endpoint, Network, PublishedPort};

const STEPS: &[&str] = &[
    "
    CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
    CREATE TABLE sandbox (container TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
    CREATE TABLE address (
        network TEXT NOT NULL, address TEXT NOT NULL, container TEXT NOT NULL,
        PRIMARY KEY (network, address)) STRICT, WITHOUT ROWID;
    CREATE INDEX address_container ON address (container);
    CREATE TABLE port (
        proto TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL, container TEXT NOT NULL,
        PRIMARY KEY (proto, host_ip, host_port)) STRICT, WITHOUT ROWID;
    CREATE INDEX port_container ON port (container);
",
    "
    ALTER TABLE port ADD COLUMN last_port INTEGER;
    UPDATE port SET last_port = host_port;
",
];

/// A container's place in one network, with what the host needs to take it apart again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) endpoint: Endpoint,
    /// The host's end of its veth pair.
    pub(crate) host_link: String,
    /// `container:alias` as requested.
    pub(crate) links: Vec<String>,
}

/// An attached container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) endpoints: Vec<Attached>,
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) dns: DnsConfig,
    /// Whether it was started with the embedded resolver.
    pub(crate) resolver: bool,
    /// Whether its monitor, which is of the release that it was started by, serves published ports.
    #[serde(default)]
    pub(crate) serves: bool,
    /// Whether the resolv.conf it was started with has names without a dot completed inside.
    #[serde(default)]
    pub(crate) single_labels_stay: bool,
}

pub(crate) fn prepare(db: &Db) -> Result<(), DbError> {
    db.migrate("network", STEPS)
}

fn document<T: Serialize>(what: &str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Record {
        what: what.to_owned(),
        reason: e.to_string(),
    })
}

fn sql(error: rusqlite::Error) -> Error {
    Error::Database(error.into())
}

/// Everything that is recorded.
pub(crate) fn load(db: &Db) -> Result<(Vec<Network>, BTreeMap<Id, SandboxRecord>), Error> {
    let (networks, sandboxes) = db.read(|connection| {
        let pairs = |query: &str| {
            connection
                .prepare(query)?
                .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        Ok((
            pairs("SELECT id, document FROM network ORDER BY id")?,
            pairs("SELECT container, document FROM sandbox")?,
        ))
    })?;
    let unreadable = |what: &str, reason: String| Error::Record {
        what: what.to_owned(),
        reason,
    };
    let networks = networks
        .iter()
        .map(|(id, text)| {
            serde_json::from_str(text).map_err(|e| unreadable(&format!("network {id}"), e.to_string()))
        })
        .collect::<Result<Vec<Network>, Error>>()?;
    let sandboxes = sandboxes
        .iter()
        .map(|(id, text)| {
            let what = format!("the network of container {id}");
            let key: Id = id
                .parse()
                .map_err(|e: spec::IdError| unreadable(&what, e.to_string()))?;
            Ok((
                key,
                serde_json::from_str(text).map_err(|e| unreadable(&what, e.to_string()))?,
            ))
        })
        .collect::<Result<_, Error>>()?;
    Ok((networks, sandboxes))
}

/// Records a network; a client is told of it after this, so it is durable.
pub(crate) fn put_network(db: &Db, network: &Network) -> Result<(), Error> {
    let text = document(&network.name, network)?;
    db.write_durable(|tx| {
        tx.execute(
            "INSERT INTO network (id, name, document) VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, document = excluded.document",
            params![network.id.as_str(), network.name, text],
        )
        .map_err(sql)?;
        Ok(())
    })
}

/// Forgets a network.
pub(crate) fn remove_network(db: &Db, id: &Id) -> Result<(), Error> {
    db.write_durable(|tx| {
        tx.execute("DELETE FROM network WHERE id = ?1", [id.as_str()])
            .map_err(sql)?;
        Ok(())
    })
}

/// Records a container's endpoints and ports in place of earlier ones.
pub(crate) fn put_sandbox(db: &Db, container: &Id, sandbox: &SandboxRecord) -> Result<(), Error> {
    let text = document(&sandbox.name, sandbox)?;
    db.write(|tx| {
        clear(tx, container).map_err(sql)?;
        tx.execute(
            "INSERT INTO sandbox (container, document) VALUES (?1, ?2)",
            params![container.as_str(), text],
        )
        .map_err(sql)?;
        hold(tx, container, sandbox).map_err(sql)?;
        Ok(())
    })
}

fn hold(tx: &Transaction<'_>, container: &Id, sandbox: &SandboxRecord) -> rusqlite::Result<()> {
    let mut address =
        tx.prepare_cached("INSERT INTO address (network, address, container) VALUES (?1, ?2, ?3)")?;
    for attached in &sandbox.endpoints {
        let endpoint = &attached.endpoint;
        let both = [endpoint.ipv4.map(IpAddr::from), endpoint.ipv6.map(IpAddr::from)];
        for held in both.into_iter().flatten() {
            address.execute(params![
                endpoint.network_id.as_str(),
                held.to_string(),
                container.as_str()
            ])?;
        }
    }
    let mut overlapping = tx.prepare_cached(
        "SELECT 1 FROM port WHERE proto = ?1 AND host_ip = ?2 AND host_port <= ?4 AND last_port >= ?3",
    )?;
    let mut port = tx.prepare_cached(
        "INSERT INTO port (proto, host_ip, host_port, last_port, container) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    // What is open at the container's own address takes nothing of the host.
    for held in sandbox.ports.iter().filter(|port| !port.routed) {
        let (proto, address) = (held.proto.to_string(), held.host_ip.to_string());
        let (first, last) = (held.host_port, held.last_host_port());
        if overlapping.exists(params![proto, address, first, last])? {
            let refused = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE);
            let text = format!("port {address}:{first}-{last}/{proto} is held already");
            return Err(rusqlite::Error::SqliteFailure(refused, Some(text)));
        }
        port.execute(params![proto, address, first, last, container.as_str()])?;
    }
    Ok(())
}

fn clear(tx: &Transaction<'_>, container: &Id) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM sandbox WHERE container = ?1",
        "DELETE FROM address WHERE container = ?1",
        "DELETE FROM port WHERE container = ?1",
    ] {
        tx.prepare_cached(statement)?.execute([container.as_str()])?;
    }
    Ok(())
}

/// Forgets a container's endpoints and ports.
pub(crate) fn remove_sandbox(db: &Db, container: &Id) -> Result<(), Error> {
    db.make_room();
    db.write(|tx| clear(tx, container).map_err(sql))
}
