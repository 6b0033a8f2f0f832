//! A table that nobody can flush, so that connections live while the real one is away.
//!
//! The kernel translates the packets of a connection it knows as long as anything in the namespace asks for translation
//! and for the tracking of connections. `nft flush ruleset` takes the last that asks; until our table is back, a packet
//! to a published port is one for the host itself, where nobody knows the connection, and it is reset.
//!
//! A table may belong to the socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12): a flush passes it by, and it goes with
//! the socket, however the daemon ends. This one holds a chain and a rule that decide nothing.

use sys::netlink::Socket;

use super::expression::{self as nft, Hook, POSTROUTING, Rule, Verdict};

/// The table as long as the socket lives; `None`, and a line in the log, where the kernel does not give it.
pub(super) fn take(tag: &str) -> Option<Socket> {
    let table = format!("{tag}-hold");
    let chain = "hold";
    let hook = Hook {
        kind: "nat",
        number: POSTROUTING,
        // Behind ours, which has said everything.
        priority: 101,
    };
    let requests = [
        nft::new_table_of_socket(&table),
        nft::new_chain(&table, chain, Some(hook)),
        Rule::new()
            .established()
            .verdict(Verdict::Return)
            .into_message(&table, chain),
    ];
    let taken = Socket::netfilter()
        .map_err(|error| error.to_string())
        .and_then(|mut socket| match socket.transaction(&requests) {
            Ok(()) => Ok(socket),
            Err(failure) => Err(failure.to_string()),
        });
    match taken {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(
                table,
                error,
                "connections to published ports may be reset when somebody flushes the host's rules"
            );
            None
        }
    }
}
