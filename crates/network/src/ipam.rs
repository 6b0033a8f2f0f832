//! Which subnets and addresses are free. Pure: what is taken comes in as an argument, what was chosen goes out, and the
//! caller records it.
//!
//! Pools are cut into subnets of one size, the lowest free one is taken, and within a subnet the lowest free address.
//! The first and the last address of an IPv4 subnet are not handed out below /31, the first of an IPv6 one never.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{Prefix, from_number, to_number};
use crate::error::Error;
use crate::model::{IpamPool, SubnetStatus};

/// A block of addresses that is cut into subnets (the daemon's `default-address-pools`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// The block.
    pub base: Prefix,
    /// The prefix length of each subnet.
    pub size: u8,
}

/// Docker's: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in blocks of /20.
pub(crate) fn default_pools() -> Vec<AddressPool> {
    let block = |a: u8, b: u8, length: u8, size: u8| {
        Prefix::new(Ipv4Addr::new(a, b, 0, 0).into(), length).map(|base| AddressPool { base, size })
    };
    let classic = (17..=31).map(|second| block(172, second, 16, 16));
    classic.chain([block(192, 168, 16, 20)]).flatten().collect()
}

/// The lowest subnet of the pools that overlaps nothing in `taken`.
pub(crate) fn free_subnet(pools: &[AddressPool], ipv4: bool, taken: &[Prefix]) -> Option<Prefix> {
    pools
        .iter()
        .filter(|pool| pool.base.is_ipv4() == ipv4)
        .find_map(|pool| {
            let width = if ipv4 { 32 } else { 128 };
            let step = 1u128.checked_shl(u32::from(width - pool.size.min(width)))?;
            let mut at = pool.base.first();
            while at <= pool.base.last() {
                let candidate = Prefix::new(from_number(at, ipv4), pool.size)?;
                match taken
                    .iter()
                    .filter(|t| t.overlaps(&candidate))
                    .map(Prefix::last)
                    .max()
                {
                    None => return Some(candidate),
                    // Go on behind what is in the way, at the next multiple of the size.
                    Some(last) => {
                        at = (last.max(candidate.last()) / step)
                            .checked_add(1)?
                            .checked_mul(step)?
                    }
                }
            }
            None
        })
}

/// A random unique local subnet (RFC 4193) that overlaps nothing in `taken`.
pub(crate) fn unique_local_subnet(taken: &[Prefix]) -> Option<Prefix> {
    (0..64).find_map(|_| {
        let random: u64 = rand::random();
        let network = 0xfd << 56 | random >> 8;
        let candidate = Prefix::new(Ipv6Addr::from(u128::from(network) << 64).into(), 64)?;
        taken.iter().all(|t| !t.overlaps(&candidate)).then_some(candidate)
    })
}

/// Checks what a client asks for. The subnet must be there.
pub(crate) fn check(pools: &[IpamPool]) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for pool in pools {
        let Some(subnet) = pool.subnet else { continue };
        if subnet != subnet.masked() {
            wrong.push(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.masked()
            ));
        }
        if let Some(range) = pool.ip_range {
            if range != range.masked() {
                wrong.push(format!(
                    "invalid ip-range {range}: it should be {}",
                    range.masked()
                ));
            }
            if range.is_ipv4() != subnet.is_ipv4() {
                wrong.push(format!(
                    "invalid ip-range {range}: parent subnet is {}",
                    family(subnet)
                ));
            } else if range.length() < subnet.length() {
                wrong.push(format!(
                    "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
                ));
            } else if !subnet.contains(range.address()) {
                wrong.push(format!(
                    "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
                ));
            }
        }
        let inside = |address: IpAddr| {
            if address.is_ipv4() != subnet.is_ipv4() {
                Err(format!("parent subnet is {}", family(subnet)))
            } else if !subnet.contains(address) {
                Err(format!("parent subnet {subnet} doesn't contain this address"))
            } else {
                Ok(())
            }
        };
        if let Some(gateway) = pool.gateway
            && let Err(reason) = inside(gateway)
        {
            wrong.push(format!("invalid gateway {gateway}: {reason}"));
        }
        for (name, address) in &pool.aux {
            if let Err(reason) = inside(*address) {
                wrong.push(format!("invalid auxiliary address {name}: {reason}"));
            }
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::Invalid(format!("invalid network config: {one}"))),
        many => Err(Error::Invalid(format!(
            "invalid network config:\n* {}",
            many.join("\n* ")
        ))),
    }
}

fn family(subnet: Prefix) -> &'static str {
    if subnet.is_ipv4() {
        "an IPv4 block"
    } else {
        "an IPv6 block"
    }
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Subnet {
    pub(crate) prefix: Prefix,
    range: Prefix,
    pub(crate) gateway: Option<IpAddr>,
    /// Never handed out: gateway, auxiliary, first and last.
    reserved: BTreeSet<u128>,
    /// Handed out.
    used: BTreeSet<u128>,
}

impl Subnet {
    /// The subnet of a checked pool. Chooses the gateway when the pool names none and `with_gateway` is set.
    pub(crate) fn new(pool: &IpamPool, with_gateway: bool) -> Option<Subnet> {
        let prefix = pool.subnet?;
        let mut reserved: BTreeSet<u128> = pool.aux.values().map(|a| to_number(*a)).collect();
        reserved.extend(ends(prefix));
        let mut subnet = Subnet {
            prefix,
            range: pool.ip_range.unwrap_or(prefix),
            gateway: pool.gateway,
            reserved,
            used: BTreeSet::new(),
        };
        if subnet.gateway.is_none() && with_gateway {
            subnet.gateway = subnet.lowest_free();
        }
        subnet.reserved.extend(subnet.gateway.map(to_number));
        Some(subnet)
    }

    fn lowest_free(&self) -> Option<IpAddr> {
        let last = self.range.last();
        let mut at = self.range.first();
        // Both sets are sorted, so the first number missing from both is found in one pass over what is taken.
        let mut reserved = self.reserved.range(at..=last).peekable();
        let mut used = self.used.range(at..=last).peekable();
        loop {
            if at > last {
                return None;
            }
            let taken = reserved.next_if_eq(&&at).is_some() | used.next_if_eq(&&at).is_some();
            if !taken {
                return Some(from_number(at, self.prefix.is_ipv4()));
            }
            at = at.checked_add(1)?;
        }
    }

    /// Takes the lowest free address.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let address = self.lowest_free()?;
        self.used.insert(to_number(address));
        Some(address)
    }

    /// Takes this address; it need not lie in the range that others are taken from.
    pub(crate) fn take_fixed(&mut self, address: IpAddr) -> Result<(), Error> {
        let number = to_number(address);
        if !self.prefix.contains(address) || self.reserved.contains(&number) || !self.used.insert(number) {
            return Err(Error::AddressInUse(address));
        }
        Ok(())
    }

    /// Gives an address back.
    pub(crate) fn free(&mut self, address: IpAddr) {
        self.used.remove(&to_number(address));
    }

    /// The counts the API shows.
    pub(crate) fn status(&self) -> SubnetStatus {
        let saturate = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        let size = (self.range.last() - self.range.first()).saturating_add(1);
        let gone = |set: &BTreeSet<u128>| set.range(self.range.first()..=self.range.last()).count();
        let taken = (gone(&self.reserved) + gone(&self.used)) as u128;
        SubnetStatus {
            subnet: self.prefix,
            in_use: saturate((self.reserved.len() + self.used.len()) as u128),
            available: saturate(size.saturating_sub(taken)),
        }
    }
}

/// The addresses at the ends of a subnet that no host has.
fn ends(prefix: Prefix) -> Vec<u128> {
    match (prefix.is_ipv4(), prefix.length()) {
        (true, 31..=32) | (false, 127..=128) => Vec::new(),
        (true, _) => vec![prefix.first(), prefix.last()],
        (false, _) => vec![prefix.first()],
    }
}

/// The pool as the API shows it: with the gateway that was chosen.
pub(crate) fn shown(subnet: &Subnet, asked: &IpamPool) -> IpamPool {
    IpamPool {
        subnet: Some(subnet.prefix),
        ip_range: asked.ip_range,
        gateway: subnet.gateway,
        aux: asked
            .aux
            .iter()
            .map(|(k, v)| (k.clone(), *v))
            .collect::<BTreeMap<_, _>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn pool(subnet: &str) -> IpamPool {
        IpamPool {
            subnet: Some(prefix(subnet)),
            ..IpamPool::default()
        }
    }

    #[test]
    fn the_pools_are_dockers() {
        let pools = default_pools();
        let mut taken = Vec::new();
        while let Some(subnet) = free_subnet(&pools, true, &taken) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 31);
        assert_eq!(taken[0], prefix("172.17.0.0/16"));
        assert_eq!(taken[14], prefix("172.31.0.0/16"));
        assert_eq!(taken[15], prefix("192.168.0.0/20"));
        assert_eq!(taken[30], prefix("192.168.240.0/20"));
    }

    #[test]
    fn a_route_in_the_way_is_gone_around() {
        let pools = default_pools();
        let taken = [prefix("172.16.0.0/12"), prefix("192.168.1.0/24")];
        assert_eq!(free_subnet(&pools, true, &taken), Some(prefix("192.168.16.0/20")));
        assert_eq!(free_subnet(&pools, true, &[prefix("0.0.0.0/0")]), None);
        let local = unique_local_subnet(&[]).unwrap();
        assert!(prefix("fd00::/8").contains(local.address()));
        assert_eq!(local.length(), 64);
    }

    #[test]
    fn addresses_come_in_order_and_are_reused() {
        let mut subnet = Subnet::new(&pool("172.17.0.0/16"), true).unwrap();
        assert_eq!(subnet.gateway, Some("172.17.0.1".parse().unwrap()));
        let first = subnet.take().unwrap();
        assert_eq!(first.to_string(), "172.17.0.2");
        assert_eq!(subnet.take().unwrap().to_string(), "172.17.0.3");
        subnet.free(first);
        assert_eq!(subnet.take(), Some(first));
        assert!(matches!(subnet.take_fixed(first), Err(Error::AddressInUse(_))));
        assert!(subnet.take_fixed("172.17.0.1".parse().unwrap()).is_err());
        assert!(subnet.take_fixed("172.18.0.9".parse().unwrap()).is_err());
        subnet.take_fixed("172.17.9.9".parse().unwrap()).unwrap();
        assert_eq!(subnet.status().in_use, 6);
        assert_eq!(subnet.status().available, 65536 - 6);
    }

    #[test]
    fn the_counts_match_a_recorded_engine() {
        let mut subnet = Subnet::new(&pool("172.30.0.0/24"), true).unwrap();
        subnet.take().unwrap();
        let status = subnet.status();
        assert_eq!((status.in_use, status.available), (4, 252));
    }

    #[test]
    fn ranges_bound_what_is_handed_out() {
        let asked = IpamPool {
            ip_range: Some(prefix("10.0.0.8/30")),
            ..pool("10.0.0.0/24")
        };
        let mut subnet = Subnet::new(&asked, true).unwrap();
        assert_eq!(subnet.gateway, Some("10.0.0.8".parse().unwrap()));
        let taken: Vec<String> = std::iter::from_fn(|| subnet.take())
            .map(|a| a.to_string())
            .collect();
        assert_eq!(taken, ["10.0.0.9", "10.0.0.10", "10.0.0.11"]);
        subnet.take_fixed("10.0.0.200".parse().unwrap()).unwrap();
    }

    #[test]
    fn tiny_and_huge_subnets() {
        let mut pair = Subnet::new(&pool("10.0.0.0/31"), true).unwrap();
        assert_eq!(pair.take(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(pair.take(), None);
        let mut wide = Subnet::new(&pool("fd00::/64"), true).unwrap();
        assert_eq!(wide.gateway, Some("fd00::1".parse().unwrap()));
        assert_eq!(wide.take(), Some("fd00::2".parse().unwrap()));
        assert_eq!(wide.status().available, u64::MAX - 2);
        assert_eq!(
            Subnet::new(&pool("::/0"), true).unwrap().status().available,
            u64::MAX
        );
        assert!(
            Subnet::new(&pool("255.255.255.255/32"), false)
                .unwrap()
                .take()
                .is_some()
        );
    }

    #[test]
    fn wrong_requests_are_told_apart() {
        let text = |pool: IpamPool| check(&[pool]).unwrap_err().to_string();
        assert_eq!(
            text(pool("10.0.0.1/24")),
            "invalid network config: invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"
        );
        let gateway = IpamPool {
            gateway: Some("10.1.0.1".parse().unwrap()),
            ..pool("10.0.0.0/24")
        };
        assert!(
            text(gateway)
                .contains("invalid gateway 10.1.0.1: parent subnet 10.0.0.0/24 doesn't contain this address")
        );
        let range = IpamPool {
            ip_range: Some(prefix("10.0.0.0/16")),
            ..pool("10.0.0.0/24")
        };
        assert!(text(range).contains("CIDR block is bigger than its parent subnet 10.0.0.0/24"));
        assert!(check(&[pool("10.0.0.0/24")]).is_ok());
    }

    proptest! {
        #[test]
        fn the_allocator_behaves_as_a_set(
            length in 24u8..=30,
            steps in proptest::collection::vec((0u8..3, 0u8..=255), 1..200),
        ) {
            let base: Prefix = format!("10.7.3.0/{length}").parse().unwrap();
            let mut subnet = Subnet::new(&IpamPool { subnet: Some(base), ..IpamPool::default() }, true).unwrap();
            let mut model: BTreeSet<IpAddr> = BTreeSet::new();
            for (step, number) in steps {
                let address: IpAddr = Ipv4Addr::new(10, 7, 3, number).into();
                match step {
                    0 => match subnet.take() {
                        Some(taken) => {
                            prop_assert!(base.contains(taken) && Some(taken) != subnet.gateway);
                            prop_assert!(to_number(taken) != base.first() && to_number(taken) != base.last());
                            // Nothing lower was free.
                            let lowest = (base.first() + 2..base.last()).map(|n| from_number(n, true)).find(|a| !model.contains(a));
                            prop_assert_eq!(Some(taken), lowest);
                            prop_assert!(model.insert(taken));
                        }
                        None => prop_assert_eq!(model.len() as u128, base.last() - base.first() - 2),
                    },
                    1 => prop_assert_eq!(
                        subnet.take_fixed(address).is_ok(),
                        base.contains(address)
                            && Some(address) != subnet.gateway
                            && to_number(address) != base.first()
                            && to_number(address) != base.last()
                            && model.insert(address)
                    ),
                    _ => {
                        subnet.free(address);
                        model.remove(&address);
                    }
                }
            }
        }

        #[test]
        fn chosen_subnets_never_overlap(taken in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..20)) {
            let taken: Vec<Prefix> =
                taken.into_iter().filter_map(|(a, l)| Prefix::new(Ipv4Addr::from(0xac10_0000 | a & 0xf_ffff).into(), l)).collect();
            if let Some(subnet) = free_subnet(&default_pools(), true, &taken) {
                prop_assert!(taken.iter().all(|t| !t.overlaps(&subnet)));
                prop_assert_eq!(subnet, subnet.masked());
            }
        }
    }
}
