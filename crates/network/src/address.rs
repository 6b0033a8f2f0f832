//! Addresses as the API spells them: prefixes, single addresses, hardware addresses. Parse errors are worded as the
//! API's clients know them from Go's `net/netip`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use spec::Id;

/// An address or prefix cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(String);

/// A single address whose parse error says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Address, ParseAddressError> {
        text.parse()
            .map(Address)
            .map_err(|_| ParseAddressError(format!("ParseAddr({text:?}): {}", why_not(text))))
    }
}

/// What is wrong with an address that does not parse.
fn why_not(text: &str) -> String {
    if text.is_empty() || !text.contains(['.', ':']) {
        return "unable to parse IP".to_owned();
    }
    if text.contains(':') {
        return "unexpected character, want colon (at \"".to_owned() + text + "\")";
    }
    for field in text.split('.') {
        if field.is_empty() {
            return format!("IPv4 field must have at least one digit (at {text:?})");
        }
        if let Some(at) = field.find(|c: char| !c.is_ascii_digit()) {
            return format!("unexpected character (at {:?})", field.get(at..).unwrap_or(field));
        }
        if field.parse::<u32>().map_or(true, |value| value > 255) {
            return "IPv4 field has value >255".to_owned();
        }
        if field.len() > 1 && field.starts_with('0') {
            return "IPv4 field has octet with leading zero".to_owned();
        }
    }
    match text.split('.').count() {
        0..=3 => "IPv4 address too short".to_owned(),
        _ => "IPv4 address too long".to_owned(),
    }
}

/// An address with the length of its network part. Whether the rest is zero depends on the use: a subnet's is, a
/// bridge's own address is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// `None` when the family has no prefix of this length.
    pub fn new(address: IpAddr, length: u8) -> Option<Prefix> {
        (length <= width(address)).then_some(Prefix { address, length })
    }

    /// The address as written.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the network part.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is an IPv4 prefix.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The same prefix with all host bits zero.
    pub fn masked(&self) -> Prefix {
        Prefix {
            address: from_number(self.first(), self.is_ipv4()),
            length: self.length,
        }
    }

    /// The lowest address as a number.
    pub(crate) fn first(&self) -> u128 {
        to_number(self.address) & !self.host_mask()
    }

    /// The highest address as a number.
    pub(crate) fn last(&self) -> u128 {
        self.first() | self.host_mask()
    }

    fn host_mask(&self) -> u128 {
        match width(self.address) - self.length {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        }
    }

    /// Whether `address` lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && (self.first()..=self.last()).contains(&to_number(address))
    }

    /// Whether any address lies in both.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first() <= other.last() && other.first() <= self.last()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address as a number, so that both families are computed with alike.
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number; bits an IPv4 address does not have are dropped.
pub(crate) fn from_number(number: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        Ipv4Addr::from(number as u32).into()
    } else {
        Ipv6Addr::from(number).into()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Prefix, ParseAddressError> {
        let wrong = |reason: String| ParseAddressError(format!("netip.ParsePrefix({text:?}): {reason}"));
        let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'".to_owned()))?;
        let address: Address = address
            .parse()
            .map_err(|reason: ParseAddressError| wrong(reason.0))?;
        let plain = !bits.is_empty()
            && bits.bytes().all(|b| b.is_ascii_digit())
            && (bits == "0" || !bits.starts_with('0'));
        if !plain {
            return Err(wrong(format!("bad bits after slash: {bits:?}")));
        }
        bits.parse()
            .ok()
            .and_then(|length| Prefix::new(address.0, length))
            .ok_or_else(|| wrong("prefix length out of range".to_owned()))
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of a container that was given `address`: locally administered, `02:42` and the IPv4 address.
    ///
    /// It follows from the IP address so that a neighbour's cached entry stays true when a stopped container's address
    /// passes to the next one; with a random one, the first seconds of the new container would be lost.
    pub(crate) fn of(address: IpAddr) -> Mac {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Mac([0x02, 0x42, a, b, c, d])
            }
            IpAddr::V6(address) => {
                // Fold the 16 bytes into four (FNV-1a); equal addresses give equal results, which is all that counts.
                let hash = address.octets().iter().fold(0x811c_9dc5u32, |h, b| {
                    (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
                });
                let [a, b, c, d] = hash.to_be_bytes();
                Mac([0x02, 0x46, a, b, c, d])
            }
        }
    }

    /// The address of a network's bridge. It follows from the network's identity, so that a bridge that is made again
    /// is found by the containers that knew the old one.
    pub(crate) fn of_network(id: &Id) -> Mac {
        let mut bytes = [0x02, 0x62, 0, 0, 0, 0];
        let digits = id.as_str().as_bytes();
        for (byte, pair) in bytes.iter_mut().skip(2).zip(digits.chunks(2)) {
            let text = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(text, 16).unwrap_or_default();
        }
        Mac(bytes)
    }

    /// A random, locally administered, unicast one.
    pub(crate) fn random() -> Mac {
        let mut bytes: [u8; 6] = rand::random();
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Mac(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Mac, ParseAddressError> {
        let wrong = || ParseAddressError(format!("address {text}: invalid MAC address"));
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0u8; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Mac(bytes))
        }
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}
as_text!(Prefix);
as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_clients_know_them() {
        let reason = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert_eq!(
            reason("300.1.1.0/24"),
            r#"netip.ParsePrefix("300.1.1.0/24"): ParseAddr("300.1.1.0"): IPv4 field has value >255"#
        );
        assert_eq!(reason("10.0.0.0"), r#"netip.ParsePrefix("10.0.0.0"): no '/'"#);
        assert_eq!(
            reason("10.0.0.0/33"),
            r#"netip.ParsePrefix("10.0.0.0/33"): prefix length out of range"#
        );
        assert_eq!(
            reason("x/8"),
            r#"netip.ParsePrefix("x/8"): ParseAddr("x"): unable to parse IP"#
        );
        assert_eq!(
            reason("10.0.0.0/ 8"),
            r#"netip.ParsePrefix("10.0.0.0/ 8"): bad bits after slash: " 8""#
        );
    }

    #[test]
    fn prefixes_know_what_they_hold() {
        let prefix: Prefix = "10.1.2.3/16".parse().unwrap();
        assert_eq!(prefix.masked().to_string(), "10.1.0.0/16");
        assert!(prefix.contains("10.1.255.255".parse().unwrap()));
        assert!(!prefix.contains("10.2.0.0".parse().unwrap()));
        assert!(!prefix.contains("::a01:0203".parse().unwrap()));
        let all: Prefix = "::/0".parse().unwrap();
        assert_eq!(all.last(), u128::MAX);
        assert!(all.overlaps(&"fd00::/64".parse().unwrap()));
        assert!(!all.overlaps(&prefix));
    }

    #[test]
    fn hardware_addresses_round_trip() {
        let mac = Mac::of("172.17.0.2".parse().unwrap());
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        assert!("02:42:ac:11:00".parse::<Mac>().is_err());
        assert!("02:42:ac:11:00:02:03".parse::<Mac>().is_err());
        assert_eq!(Mac::random().0[0] & 3, 2);
    }
}
