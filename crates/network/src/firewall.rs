//! The instance's nftables table and the small one inside a container's namespace.
//!
//! One table, `inet <tag>`, holds every rule; networks and ports are elements of its sets and maps, so that publishing
//! a port is one transaction with one element, whatever else is published. A daemon that starts adopts the table it
//! finds when it holds what the records say, and otherwise replaces it in one transaction; when somebody else changes
//! it later, it is replaced in the same way (`watch`). Connections go on, since their translation lives in conntrack.
//!
//! No other table is ever read or written.

mod conntrack;
pub(crate) mod expression;
mod gate;
pub(crate) mod ports;
pub(crate) mod ruleset;

use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use sys::netlink::{Failure, Message, Reply, Socket};

use crate::error::Error;
use expression::{Element, End, Hook, NFPROTO_IPV4, OUTPUT, PREROUTING, Rule, TCP, UDP};
pub(crate) use gate::Gate;
pub(crate) use ports::{PortRule, Way};
pub(crate) use ruleset::{BridgeRules, Desired};

/// Whether the kernel's packet filter can be used; changes nothing.
pub fn check_kernel() -> Result<(), Error> {
    Firewall::open("")?.foreign_filters().map(drop)
}

/// The firewall of one instance.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    socket: Mutex<Socket>,
}

impl Firewall {
    /// Opens the talk with the kernel; nothing is changed yet.
    pub(crate) fn open(tag: &str) -> Result<Firewall, Error> {
        let socket = Socket::netfilter().map_err(Error::io("open a netfilter socket"))?;
        Ok(Firewall {
            table: tag.to_owned(),
            socket: Mutex::new(socket),
        })
    }

    fn run(&self, messages: &[Message]) -> Result<(), Failure> {
        self.socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .transaction(messages)
    }

    /// The number by which the kernel's announcements name our own changes.
    pub(crate) fn port(&self) -> Result<u32, Error> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket
            .port()
            .map_err(Error::io("read the netfilter socket's address"))
    }

    /// Whether an announcement tells of a change of this table that somebody else made.
    pub(crate) fn is_foreign_change(&self, announcement: &Reply, own_port: u32) -> bool {
        announcement.port != own_port
            && expression::table_of(announcement).is_some_and(|table| table == self.table)
    }

    /// Filters of other tables that drop forwarded packets unless a rule of theirs accepts: they decide about published
    /// ports as well. Read alone.
    pub(crate) fn foreign_filters(&self) -> Result<Vec<String>, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let chains = socket
            .dump(&expression::list_chains())
            .map_err(Error::kernel("read the host's filters"))?;
        let filters = chains.iter().filter_map(expression::read_filter);
        let strict = filters.filter(|f| f.drops && f.hook == expression::FORWARD && f.table != self.table);
        Ok(strict
            .map(|f| format!("chain {} of table {} {}", f.chain, f.family, f.table))
            .collect())
    }

    /// Makes the table as `desired` unless it is so already; tells in what it differed.
    pub(crate) fn ensure(&self, desired: &Desired) -> Result<Option<String>, Error> {
        let difference = self.differs(desired)?;
        if difference.is_some() {
            self.replace(desired)?;
            let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(failure) = conntrack::forget_untranslated(&mut socket, desired) {
                tracing::warn!(%failure, "flows that began while the firewall table was away could not be forgotten; they may go on past it");
            }
        }
        Ok(difference)
    }

    /// Makes the whole table as `desired`, whatever it was.
    pub(crate) fn replace(&self, desired: &Desired) -> Result<(), Error> {
        self.run(&ruleset::replace(&self.table, desired))
            .map_err(Error::kernel(format!(
                "write the firewall table inet {}",
                self.table
            )))
    }

    /// Whether the table is there.
    pub(crate) fn is_there(&self) -> Result<bool, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.get(&expression::get_table(&self.table)) {
            Ok(_) => Ok(true),
            Err(failure) if failure.errno == Errno::NOENT => Ok(false),
            Err(failure) => Err(Error::kernel(format!(
                "read the firewall table inet {}",
                self.table
            ))(failure)),
        }
    }

    /// Removes the table.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        // Adding it first makes the removal succeed when it is gone.
        let mut messages = vec![
            expression::new_table(&self.table),
            expression::delete_table(&self.table),
        ];
        messages.extend(gate::tables(&self.table, None));
        self.run(&messages).map_err(Error::kernel(format!(
            "remove the firewall table inet {}",
            self.table
        )))
    }

    /// In what the table differs from `desired`, if it does.
    pub(crate) fn differs(&self, desired: &Desired) -> Result<Option<String>, Error> {
        let failed = || Error::kernel(format!("read the firewall table inet {}", self.table));
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.get(&expression::get_table(&self.table)) {
            Ok(Some(table)) if expression::has_comment(&table, &ruleset::stamp(desired.gate.is_some())) => {}
            Ok(_) => return Ok(Some("it is of another release".to_owned())),
            Err(failure) if failure.errno == Errno::NOENT => return Ok(Some("it is not there".to_owned())),
            Err(failure) => return Err(failed()(failure)),
        }
        if let Some(gate) = &desired.gate {
            for family in [expression::NFPROTO_IPV4, expression::NFPROTO_IPV6] {
                match socket.get(&expression::get_table_of_family(family, &self.table)) {
                    Ok(Some(table)) if expression::has_comment(&table, &gate.stamp()) => {}
                    Ok(_) => return Ok(Some("its gate is another one".to_owned())),
                    Err(failure) if failure.errno == Errno::NOENT => {
                        return Ok(Some("its gate is not there".to_owned()));
                    }
                    Err(failure) => return Err(failed()(failure)),
                }
            }
        }
        let mut wanted = ruleset::elements(desired);
        for set in ruleset::set_names() {
            let there = match socket.dump(&expression::list_elements(&self.table, set)) {
                Ok(replies) => replies
                    .iter()
                    .flat_map(|reply| expression::read_elements(set, reply))
                    .collect(),
                Err(failure) if failure.errno == Errno::NOENT => {
                    return Ok(Some(format!("set {set} is not there")));
                }
                Err(failure) => return Err(failed()(failure)),
            };
            let there: Vec<Element> = there;
            let (ours, others) = wanted.into_iter().partition(|element| element.set == set);
            let ours: Vec<Element> = ours;
            wanted = others;
            let missing = ours.iter().filter(|element| !there.contains(element)).count();
            let foreign = there.iter().filter(|element| !ours.contains(element)).count();
            if missing + foreign > 0 {
                return Ok(Some(format!(
                    "set {set} lacks {missing} elements and has {foreign} too many"
                )));
            }
        }
        let rules = match socket.dump(&expression::list_rules(&self.table)) {
            Ok(rules) => rules.len(),
            Err(failure) if failure.errno == Errno::NOENT => 0,
            Err(failure) => return Err(failed()(failure)),
        };
        let expected = ruleset::rules(desired.gate.is_some()).len();
        Ok((rules != expected).then(|| format!("{rules} rules instead of {expected}")))
    }

    /// Leads ports elsewhere: `before` is where they led. Flows of datagrams that the kernel remembers the old way are
    /// forgotten, since a client that goes on sending would keep them alive for ever; connections end by themselves.
    pub(crate) fn change_ports(
        &self,
        before: &[PortRule],
        after: &[PortRule],
        desired: impl FnOnce() -> Desired,
    ) -> Result<(), Error> {
        let (old, new) = (ports::port_elements(before), ports::port_elements(after));
        let removed: Vec<Element> = old.iter().filter(|e| !new.contains(e)).cloned().collect();
        let added: Vec<Element> = new.into_iter().filter(|e| !old.contains(e)).collect();
        self.change(&removed, &added, desired)?;
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(failure) = conntrack::forget(&mut socket, before, after) {
            tracing::warn!(%failure, "flows of datagrams to published ports could not be forgotten; they may go where the port led before");
        }
        Ok(())
    }

    /// Takes elements out and puts others in, in one transaction. When the table is not as this daemon left it
    /// (somebody flushed it), it is made anew from `desired`, which is asked for only then.
    pub(crate) fn change(
        &self,
        removed: &[Element],
        added: &[Element],
        desired: impl FnOnce() -> Desired,
    ) -> Result<(), Error> {
        if removed.is_empty() && added.is_empty() {
            return Ok(());
        }
        let mut messages = expression::elements(&self.table, false, removed);
        messages.extend(expression::elements(&self.table, true, added));
        match self.run(&messages) {
            Ok(()) => Ok(()),
            Err(failure) => {
                tracing::warn!(table = %self.table, %failure, "the firewall table was not as expected and is written anew");
                self.replace(&desired())
            }
        }
    }
}

/// Leads what a container sends to the resolver's address, port 53, to the ports the resolver's sockets really have.
/// `socket` was opened inside the container's namespace.
///
/// The port is written into the packets on their way out, and back into the answers on their way in. Translation (nat)
/// would do it as well, but it makes the kernel keep a record of every connection of the namespace (conntrack), which each
/// packet to and from the world would pay for. Both rules stand outside the stretch between conntrack's hooks, so a program
/// in the container that uses it sees one consistent flow.
pub(crate) fn redirect_resolver(socket: &mut Socket, ports: (u16, u16)) -> Result<(), Failure> {
    const TABLE: &str = "resolver";
    const ASKED: &str = "output";
    const ANSWERED: &str = "prerouting";
    const DOMAIN: u16 = 53;
    let hook = |number| Hook {
        kind: "filter",
        number,
        priority: expression::BEFORE_CONNTRACK,
    };
    let lead = |chain, end, protocol, from, to| {
        Rule::new()
            .end_ipv4(end, dns::ADDRESS, protocol, from)
            .set_port(end, protocol, to)
            .into_message_of_family(NFPROTO_IPV4, TABLE, chain)
    };
    let mut messages = vec![
        expression::table_of_family(NFPROTO_IPV4, TABLE, None),
        expression::chain_of_family(NFPROTO_IPV4, TABLE, ASKED, hook(OUTPUT)),
        expression::chain_of_family(NFPROTO_IPV4, TABLE, ANSWERED, hook(PREROUTING)),
    ];
    for (protocol, port) in [(UDP, ports.0), (TCP, ports.1)] {
        messages.push(lead(ASKED, End::Destination, protocol, DOMAIN, port));
        messages.push(lead(ANSWERED, End::Source, protocol, port, DOMAIN));
    }
    socket.transaction(&messages)
}
