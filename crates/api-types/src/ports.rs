//! Ports of a container with what each has, as the API writes them: an object with an entry for each port
//! (`{"80/tcp": …}`), kept as runs of ports side by side. A range of ten thousand is one run here and is written out, and
//! read, entry by entry, so that only those pay for it who look.
//!
//! A port is in one run at most, and runs are as long as they can be; equal maps are therefore equal value for value.
//! A name that is not a number from 1 on and a protocol, as this crate writes them (`80`, `080/tcp`, `80/TCP`), is kept as
//! it is spelled, beside the runs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use crate::collection::{Empty, List};
use crate::network::PortBinding;

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    /// Reads the protocol as this crate writes it.
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "sctp" => Some(Protocol::Sctp),
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Sctp => "sctp",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What ports side by side may have in common.
pub trait PortValue: Clone {
    /// Whether this is what a port has that comes `distance` behind the one that has `first`.
    fn follows(&self, first: &Self, distance: u16) -> bool;

    /// What the port has that comes `distance` behind this one's.
    fn at(&self, distance: u16) -> Self;

    /// Writes what [`PortValue::at`] gives.
    fn serialize_at<S: Serializer>(&self, distance: u16, serializer: S) -> Result<S::Ok, S::Error>;
}

/// Ports side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<V> {
    /// How many, from the first one on; never 0.
    pub count: u16,
    /// What the first of them has.
    pub value: V,
}

/// Ports and what each has; written `null` when it is empty and was never given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports<V> {
    runs: BTreeMap<(Protocol, u16), Run<V>>,
    others: BTreeMap<String, V>,
    given: bool,
}

/// Published ports with their bindings; a port that is exposed only has a null list.
pub type PortMap = Ports<List<PortBinding>>;

/// Ports that are exposed.
pub type ExposedPorts = Ports<Empty>;

impl<V> Ports<V> {
    /// The object that was not given (`null`).
    pub const fn null() -> Self {
        Self {
            runs: BTreeMap::new(),
            others: BTreeMap::new(),
            given: false,
        }
    }

    /// The object that was given without entries (`{}`).
    pub const fn empty() -> Self {
        Self {
            runs: BTreeMap::new(),
            others: BTreeMap::new(),
            given: true,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.others.is_empty()
    }

    /// Whether it would be written as `null`.
    pub fn is_null(&self) -> bool {
        !self.given && self.is_empty()
    }

    /// The same entries, never written as `null`.
    pub fn or_empty(mut self) -> Self {
        self.given = true;
        self
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        let ports: usize = self.runs.values().map(|run| usize::from(run.count)).sum();
        ports + self.others.len()
    }

    /// The runs by protocol and first port.
    pub fn runs(&self) -> impl Iterator<Item = (Protocol, u16, &Run<V>)> {
        self.runs
            .iter()
            .map(|((protocol, first), run)| (*protocol, *first, run))
    }

    /// What is spelled in another way than this crate does it.
    pub fn others(&self) -> &BTreeMap<String, V> {
        &self.others
    }

    /// What the runs, of each the first port, and the others have.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        let runs = self.runs.values().map(|run| &run.value);
        runs.chain(self.others.values())
    }

    /// The run that a port is in, with its first one.
    fn run_of(&self, protocol: Protocol, port: u16) -> Option<(u16, &Run<V>)> {
        let before = self.runs.range((protocol, 0)..=(protocol, port)).next_back();
        before
            .map(|((_, first), run)| (*first, run))
            .filter(|(first, run)| port - first < run.count)
    }

    pub fn contains_key(&self, name: &str) -> bool {
        match parse(name) {
            Some((protocol, port)) => self.run_of(protocol, port).is_some(),
            None => self.others.contains_key(name),
        }
    }
}

impl<V: PortValue> Ports<V> {
    /// What a port has.
    pub fn get(&self, name: &str) -> Option<V> {
        match parse(name) {
            Some((protocol, port)) => {
                let (first, run) = self.run_of(protocol, port)?;
                Some(run.value.at(port - first))
            }
            None => self.others.get(name).cloned(),
        }
    }

    /// Sets what a port has.
    pub fn insert(&mut self, name: &str, value: V) {
        match parse(name) {
            Some((protocol, port)) => self.put(protocol, port, 1, value),
            None => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }

    /// Sets what ports side by side have, where `value` is what the first of them has.
    pub fn insert_range(&mut self, protocol: Protocol, ports: RangeInclusive<u16>, value: V) {
        let (mut first, last) = ports.into_inner();
        let mut value = value;
        if first == 0 {
            self.others
                .insert(format!("0/{}", protocol.as_str()), value.clone());
            (first, value) = (1, value.at(1));
        }
        if let Some(more) = last.checked_sub(first) {
            self.put(protocol, first, more + 1, value);
        }
    }

    /// Takes a port out.
    pub fn remove(&mut self, name: &str) {
        match parse(name) {
            Some((protocol, port)) => self.take_out(protocol, port, 1),
            None => {
                self.others.remove(name);
            }
        }
    }

    /// Every port with what it has, in the order of their names.
    pub fn entries(&self) -> BTreeMap<String, V> {
        let mut entries = self.others.clone();
        for ((protocol, first), run) in &self.runs {
            entries.extend((0..run.count).map(|n| {
                let port = first.saturating_add(n);
                (format!("{port}/{}", protocol.as_str()), run.value.at(n))
            }));
        }
        entries
    }

    /// The names of all ports, in their order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let mut names: Vec<String> = self.others.keys().cloned().collect();
        for ((protocol, first), run) in &self.runs {
            let ports = (0..run.count).map(|n| first.saturating_add(n));
            names.extend(ports.map(|port| format!("{port}/{}", protocol.as_str())));
        }
        names.sort_unstable();
        names.into_iter()
    }

    /// Makes ports that are in no run a run, or a part of those beside them. None of them is 0 or beyond the last there is.
    fn put(&mut self, protocol: Protocol, first: u16, count: u16, value: V) {
        self.take_out(protocol, first, count);
        let mut first = first;
        let before = self.runs.range_mut((protocol, 0)..(protocol, first)).next_back();
        match before {
            Some(((_, begin), run)) if first - begin == run.count && value.follows(&run.value, run.count) => {
                run.count += count;
                first = *begin;
            }
            _ => {
                self.runs.insert((protocol, first), Run { count, value });
            }
        }
        let Some(run) = self.runs.get(&(protocol, first)) else {
            return;
        };
        let next = first.checked_add(run.count).map(|next| (protocol, next));
        let follows = |next: &Run<V>| next.value.follows(&run.value, run.count);
        if let Some(next) = next.filter(|next| self.runs.get(next).is_some_and(follows))
            && let Some(joined) = self.runs.remove(&next)
            && let Some(run) = self.runs.get_mut(&(protocol, first))
        {
            run.count += joined.count;
        }
    }

    /// Takes ports out of the runs that they are in.
    fn take_out(&mut self, protocol: Protocol, first: u16, count: u16) {
        let last = first.saturating_add(count - 1);
        let mut behind = None;
        // What is left of a run behind these ports.
        let mut cut = |begin: u16, run: &Run<V>| {
            let end = begin.saturating_add(run.count - 1);
            if end > last {
                let value = run.value.at(last + 1 - begin);
                behind = Some(Run {
                    count: end - last,
                    value,
                });
            }
        };
        let before = self.runs.range_mut((protocol, 0)..(protocol, first)).next_back();
        if let Some(((_, begin), run)) = before
            && first - begin < run.count
        {
            cut(*begin, run);
            run.count = first - begin;
        }
        loop {
            let within = self.runs.range((protocol, first)..=(protocol, last)).next();
            let Some(key) = within.map(|(key, _)| *key) else {
                break;
            };
            if let Some(run) = self.runs.remove(&key) {
                cut(key.1, &run);
            }
        }
        if let Some(run) = behind {
            self.runs.insert((protocol, last + 1), run);
        }
    }
}

impl PortMap {
    /// Adds a binding to ports side by side; `binding` is the first one's.
    pub fn bind(&mut self, protocol: Protocol, ports: RangeInclusive<u16>, binding: &PortBinding) {
        let (first, last) = ports.into_inner();
        if first == 0 {
            self.bind_other(&format!("0/{}", protocol.as_str()), binding);
        }
        // Each part of the range that has one value so far.
        let mut next = Some(first.max(1)).filter(|next| *next <= last);
        while let Some(at) = next {
            let (end, bindings) = match self.run_of(protocol, at) {
                Some((begin, run)) => (begin.saturating_add(run.count - 1), run.value.at(at - begin)),
                None => {
                    let behind = self.runs.range((protocol, at)..=(protocol, last)).next();
                    let end = behind.map_or(last, |((_, begin), _)| begin - 1);
                    (end, List::empty())
                }
            };
            let end = end.min(last);
            let mut bindings = bindings.or_empty();
            bindings.push(binding.at(at - first));
            self.put(protocol, at, end - at + 1, bindings);
            next = end.checked_add(1).filter(|next| *next <= last);
        }
    }

    /// Adds a binding to a port that is spelled in its own way.
    pub fn bind_other(&mut self, name: &str, binding: &PortBinding) {
        let mut bindings = self.get(name).unwrap_or_else(List::empty).or_empty();
        bindings.push(binding.clone());
        self.insert(name, bindings);
    }
}

impl PortBinding {
    /// The port of the host, where it is written as one, in the way this crate does it.
    pub fn number(&self) -> Option<u16> {
        plain_number(&self.host_port)
    }

    /// What the port has that comes `distance` behind this one's: the port of the host that is as far behind, where it is
    /// one, and what is written here otherwise.
    fn at(&self, distance: u16) -> PortBinding {
        PortBinding {
            host_ip: self.host_ip.clone(),
            host_port: match self.number() {
                Some(number) if distance > 0 => number.saturating_add(distance).to_string(),
                _ => self.host_port.clone(),
            },
        }
    }

    fn follows(&self, first: &PortBinding, distance: u16) -> bool {
        self.host_ip == first.host_ip
            && match (first.number(), self.number()) {
                (Some(number), ours) => number.checked_add(distance) == ours && ours.is_some(),
                (None, None) => self.host_port == first.host_port,
                (None, Some(_)) => false,
            }
    }
}

impl PortValue for Empty {
    fn follows(&self, _: &Self, _: u16) -> bool {
        true
    }

    fn at(&self, _: u16) -> Self {
        *self
    }

    fn serialize_at<S: Serializer>(&self, _: u16, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

impl PortValue for List<PortBinding> {
    fn follows(&self, first: &Self, distance: u16) -> bool {
        self.is_null() == first.is_null()
            && self.len() == first.len()
            && self
                .iter()
                .zip(first.iter())
                .all(|(ours, theirs)| ours.follows(theirs, distance))
    }

    fn at(&self, distance: u16) -> Self {
        if self.is_null() {
            return List::null();
        }
        self.iter().map(|binding| binding.at(distance)).collect()
    }

    fn serialize_at<S: Serializer>(&self, distance: u16, serializer: S) -> Result<S::Ok, S::Error> {
        if distance == 0 || self.is_null() {
            return self.serialize(serializer);
        }
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for binding in self {
            list.serialize_element(&BindingAt { binding, distance })?;
        }
        list.end()
    }
}

/// A binding of a run, so far behind the first port.
struct BindingAt<'a> {
    binding: &'a PortBinding,
    distance: u16,
}

impl Serialize for BindingAt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(number) = self.binding.number() else {
            return self.binding.serialize(serializer);
        };
        let mut fields = serializer.serialize_struct("PortBinding", 2)?;
        fields.serialize_field("HostIp", &self.binding.host_ip)?;
        let number = number.saturating_add(self.distance);
        fields.serialize_field("HostPort", &format_args!("{number}"))?;
        fields.end()
    }
}

/// What a port of a run has.
struct ValueAt<'a, V> {
    value: &'a V,
    distance: u16,
}

impl<V: PortValue> Serialize for ValueAt<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize_at(self.distance, serializer)
    }
}

/// A port's name. `65535/sctp` is the longest; the others end in zeros, which come before all that a name is made of, so
/// that names are in the order of their texts.
type Name = [u8; 10];

fn name(protocol: Protocol, port: u16) -> Name {
    let mut name = Name::default();
    let mut rest = &mut name[..];
    // There is room for each.
    let _ = write!(rest, "{port}/{}", protocol.as_str());
    name
}

fn text(name: &Name) -> &str {
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

/// A number from 1 on, written without signs and zeros before it.
fn plain_number(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Reads a name that is spelled as this crate does it.
fn parse(name: &str) -> Option<(Protocol, u16)> {
    let (number, protocol) = name.split_once('/')?;
    Some((Protocol::parse(protocol)?, plain_number(number)?))
}

impl<V> Default for Ports<V> {
    fn default() -> Self {
        Self::null()
    }
}

impl<V: PortValue + Serialize> Serialize for Ports<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_null() {
            return serializer.serialize_none();
        }
        if !self.others.is_empty() {
            return self.entries().serialize(serializer);
        }
        let mut names: Vec<(Name, ValueAt<'_, V>)> = Vec::with_capacity(self.len());
        for ((protocol, first), run) in &self.runs {
            names.extend((0..run.count).map(|distance| {
                let value = &run.value;
                (
                    name(*protocol, first.saturating_add(distance)),
                    ValueAt { value, distance },
                )
            }));
        }
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut map = serializer.serialize_map(Some(names.len()))?;
        for (name, value) in &names {
            map.serialize_entry(text(name), value)?;
        }
        map.end()
    }
}

impl<'de, V: PortValue + Deserialize<'de>> Deserialize<'de> for Ports<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(Entries(PhantomData))
    }
}

struct Entries<V>(PhantomData<V>);

impl<'de, V: PortValue + Deserialize<'de>> Visitor<'de> for Entries<V> {
    type Value = Ports<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of ports")
    }

    fn visit_none<E: Error>(self) -> Result<Ports<V>, E> {
        Ok(Ports::null())
    }

    fn visit_unit<E: Error>(self) -> Result<Ports<V>, E> {
        Ok(Ports::null())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Ports<V>, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ports<V>, A::Error> {
        let mut ports = Ports::empty();
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value()?;
            match key {
                Spelled::Port(protocol, port) => ports.put(protocol, port, 1, value),
                Spelled::Otherwise(name) => {
                    ports.others.insert(name, value);
                }
            }
        }
        Ok(ports)
    }
}

/// A name on its way in.
struct Key(Spelled);

enum Spelled {
    Port(Protocol, u16),
    Otherwise(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a port")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                Ok(Key(match parse(text) {
                    Some((protocol, port)) => Spelled::Port(protocol, port),
                    None => Spelled::Otherwise(text.to_owned()),
                }))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_ip: &str, host_port: &str) -> PortBinding {
        PortBinding {
            host_ip: host_ip.to_owned(),
            host_port: host_port.to_owned(),
        }
    }

    fn runs<V>(ports: &Ports<V>) -> Vec<(Protocol, u16, u16)> {
        ports
            .runs()
            .map(|(protocol, first, run)| (protocol, first, run.count))
            .collect()
    }

    /// What is read, taken apart entry by entry, is what a map of entries would hold.
    fn is_written_as_it_was_read(text: &str) -> PortMap {
        let ports: PortMap = serde_json::from_str(text).unwrap();
        let plain: Option<BTreeMap<String, List<PortBinding>>> = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::to_string(&ports).unwrap(),
            serde_json::to_string(&plain).unwrap()
        );
        assert_eq!(ports.len(), plain.as_ref().map_or(0, BTreeMap::len));
        assert_eq!(ports.entries(), plain.unwrap_or_default());
        ports
    }

    #[test]
    fn ports_side_by_side_are_one_run_and_are_written_one_by_one() {
        let text = r#"{"8/tcp":[{"HostIp":"","HostPort":"98"}],"9/tcp":[{"HostIp":"","HostPort":"99"}],"10/tcp":[{"HostIp":"","HostPort":"100"}],
            "10/udp":[{"HostIp":"","HostPort":"100"}],"11/tcp":[{"HostIp":"","HostPort":"100"}],"13/tcp":null,"14/tcp":null,"15/tcp":[]}"#;
        let ports = is_written_as_it_was_read(text);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert_eq!(
            runs(&ports),
            [
                (tcp, 8, 3),
                (tcp, 11, 1),
                (tcp, 13, 2),
                (tcp, 15, 1),
                (udp, 10, 1)
            ]
        );
    }

    #[test]
    fn null_and_empty_are_told_apart() {
        for text in ["null", "{}"] {
            is_written_as_it_was_read(text);
        }
        assert_eq!(serde_json::to_string(&PortMap::null()).unwrap(), "null");
        assert_eq!(serde_json::to_string(&PortMap::null().or_empty()).unwrap(), "{}");
    }

    #[test]
    fn other_spellings_are_kept_as_they_are() {
        let text = r#"{"80":[{"HostIp":"","HostPort":"1"}],"80/tcp":[{"HostIp":"","HostPort":"2"}],"080/tcp":[],"81/TCP":[],
            "0/tcp":[],"65536/tcp":[],"+1/tcp":[],"/tcp":[],"1-2/tcp":[],"a":null,"":null}"#;
        let ports = is_written_as_it_was_read(text);
        assert_eq!(runs(&ports), [(Protocol::Tcp, 80, 1)]);
        for name in ["80", "080/tcp", "81/TCP", "a", ""] {
            assert!(ports.contains_key(name), "{name}");
        }
    }

    #[test]
    fn ports_that_only_look_like_neighbours_stay_apart() {
        let text = r#"{"1/tcp":[{"HostIp":"","HostPort":"65535"}],"2/tcp":[{"HostIp":"","HostPort":"65536"}],
            "3/tcp":[{"HostIp":"","HostPort":"65537"}],"10/tcp":[{"HostIp":"","HostPort":"07"}],"11/tcp":[{"HostIp":"","HostPort":"8"}],
            "20/tcp":[{"HostIp":"::1","HostPort":"7"}],"21/tcp":[{"HostIp":"::","HostPort":"8"}],
            "30/tcp":[{"HostIp":"","HostPort":"7"}],"31/tcp":[{"HostIp":"","HostPort":"8"},{"HostIp":"","HostPort":"9"}],
            "65535/tcp":[{"HostIp":"","HostPort":"1-5"}],"65534/tcp":[{"HostIp":"","HostPort":"1-5"}]}"#;
        let ports = is_written_as_it_was_read(text);
        assert_eq!(ports.runs().filter(|(.., run)| run.count > 1).count(), 1);
    }

    #[test]
    fn a_range_is_cut_and_made_whole_again() {
        let mut ports = PortMap::empty();
        ports.bind(Protocol::Tcp, 20000..=29999, &binding("", "30000"));
        let whole = ports.clone();
        assert_eq!(runs(&ports), [(Protocol::Tcp, 20000, 10000)]);
        assert_eq!(ports.get("25000/tcp").unwrap().as_slice(), [binding("", "35000")]);
        assert!(ports.get("25000/udp").is_none() && ports.get("30000/tcp").is_none());
        ports.remove("25000/tcp");
        ports.remove("29999/tcp");
        ports.remove("20000/tcp");
        assert_eq!(
            runs(&ports),
            [(Protocol::Tcp, 20001, 4999), (Protocol::Tcp, 25001, 4998)]
        );
        assert!(!ports.contains_key("25000/tcp"));
        for port in [20000, 25000, 29999] {
            let bindings = List::from([binding("", &(port + 10000).to_string())]);
            ports.insert(&format!("{port}/tcp"), bindings);
        }
        assert_eq!(ports, whole);
        // One that leads elsewhere divides it, and leads back.
        ports.insert("20001/tcp", List::null());
        assert_eq!(runs(&ports).len(), 3);
        ports.insert_range(Protocol::Tcp, 20000..=20002, List::from([binding("", "30000")]));
        assert_eq!(ports, whole);
    }

    #[test]
    fn bindings_are_added_to_each_part_of_a_range() {
        let mut ports = PortMap::null();
        ports.bind(Protocol::Udp, 10..=12, &binding("", "10"));
        ports.bind(Protocol::Udp, 12..=14, &binding("::1", ""));
        ports.insert_range(Protocol::Udp, 16..=17, List::null());
        ports.bind(Protocol::Udp, 13..=18, &binding("", "113"));
        let shown: Vec<String> = ports
            .entries()
            .iter()
            .map(|(name, list)| {
                let all: Vec<String> = list
                    .iter()
                    .map(|b| format!("{}:{}", b.host_ip, b.host_port))
                    .collect();
                format!("{name} {}", all.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "10/udp :10",
                "11/udp :11",
                "12/udp :12 ::1:",
                "13/udp ::1: :113",
                "14/udp ::1: :114",
                "15/udp :115",
                "16/udp :116",
                "17/udp :117",
                "18/udp :118"
            ]
        );
        assert!(ports.names().eq(ports.entries().into_keys()));
        // The first and the last port there are.
        let mut all = PortMap::empty();
        all.bind(Protocol::Tcp, 0..=u16::MAX, &binding("", ""));
        assert_eq!((all.len(), runs(&all)), (65536, vec![(Protocol::Tcp, 1, 65535)]));
        assert!(all.contains_key("0/tcp"));
    }

    #[test]
    fn the_later_of_two_entries_counts() {
        let text = r#"{"80/tcp":[{"HostIp":"","HostPort":"1"}],"81/tcp":[],"80/tcp":[{"HostIp":"","HostPort":"2"}]}"#;
        let ports = is_written_as_it_was_read(text);
        assert_eq!(ports.get("80/tcp").unwrap().as_slice(), [binding("", "2")]);
    }

    #[test]
    fn what_happens_to_runs_is_what_happens_to_entries() {
        // Every step on both, with ports close together so that runs meet.
        let mut seed = 7u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let (mut ports, mut plain) = (PortMap::empty(), BTreeMap::<String, List<PortBinding>>::new());
        for _ in 0..5000 {
            let port = u16::try_from(1 + next(24)).unwrap();
            let count = u16::try_from(1 + next(6)).unwrap();
            let host = ["", "5-9", "100", "101"][next(4) as usize];
            let first = binding(["", "::1"][next(2) as usize], host);
            let named = |n: u16| format!("{}/tcp", port + n);
            match next(3) {
                0 => {
                    ports.remove(&named(0));
                    plain.remove(&named(0));
                }
                1 => {
                    ports.bind(Protocol::Tcp, port..=port + count - 1, &first);
                    for n in 0..count {
                        plain
                            .entry(named(n))
                            .or_insert_with(List::empty)
                            .push(first.at(n));
                    }
                }
                _ => {
                    let value = List::from([first]);
                    ports.insert_range(Protocol::Tcp, port..=port + count - 1, value.clone());
                    for n in 0..count {
                        plain.insert(named(n), value.at(n));
                    }
                }
            }
            assert_eq!(ports.entries(), plain);
            let read: PortMap = serde_json::from_str(&serde_json::to_string(&plain).unwrap()).unwrap();
            assert_eq!(ports, read, "the runs are as long as they can be");
        }
    }
}
