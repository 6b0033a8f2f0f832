//! The resolver's tables: one file per network (names and addresses in it) and one per container (which networks it
//! is in, and where the rest is asked). `network` writes them whole and renames them into place; servers look at them
//! again when the file is another one, so that a table outlives every process that uses it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Nothing we write comes near; a bigger file is not ours.
const LARGEST: u64 = 64 * 1024 * 1024;

/// `<dir>/<network id>.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's name, which works as a domain (`web.mynet`).
    pub name: String,
    /// Lower-case name to addresses; a name shared by several containers has several.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Address to the name given for it, without the domain.
    pub reverse: BTreeMap<IpAddr, String>,
}

/// `<dir>/<container id>.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its networks, the one that is asked first in front.
    pub networks: Vec<Membership>,
    /// Servers for every other name. They are asked from the host's namespace.
    pub upstreams: Vec<SocketAddr>,
    /// False where no network of the container leads outside.
    pub forward: bool,
    /// Names without a dot are asked of nobody else: the container appends its search domains first (`ndots`).
    #[serde(default)]
    pub single_labels_stay: bool,
}

/// A container's view of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's id, which names its table.
    pub network: String,
    /// Names only this container uses, and the names they stand for in the network (`--link`).
    pub links: BTreeMap<String, String>,
}

/// Where the table of `id` (a network's or a container's) lies in `dir`.
pub fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Writes `value` beside `path` and renames it there, so that a reader sees the old table or the new one. Not synced:
/// the directory does not outlive the machine's run.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Reads a table.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is too large for a name table", path.display()),
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// What tells one file at a path from the next.
type Stamp = (u64, i64, i64, u64);

/// A table with the file it came from. A table that is gone or broken is an empty one.
#[derive(Debug, Default)]
struct Cached<T> {
    stamp: Option<Stamp>,
    value: T,
}

impl<T: DeserializeOwned + Default> Cached<T> {
    fn refresh(&mut self, path: &Path) {
        let stamp = fs::metadata(path)
            .ok()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
        if stamp != self.stamp {
            self.value = read(path).unwrap_or_default();
            self.stamp = stamp;
        }
    }
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Addresses of either family.
    Addresses(Vec<IpAddr>),
    /// Nothing: the name is somebody else's.
    Nothing,
}

/// One container's tables, kept fresh.
#[derive(Debug)]
pub(crate) struct Tables {
    path: PathBuf,
    container: Cached<Container>,
    networks: BTreeMap<String, Cached<Network>>,
}

impl Tables {
    pub(crate) fn new(path: PathBuf) -> Tables {
        Tables {
            path,
            container: Cached::default(),
            networks: BTreeMap::new(),
        }
    }

    /// Looks at the files again: one `stat` each.
    pub(crate) fn refresh(&mut self) {
        self.container.refresh(&self.path);
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let members = &self.container.value.networks;
        self.networks
            .retain(|id, _| members.iter().any(|m| &m.network == id));
        for member in members {
            // An id is a file's name here; anything else than plain text in it is not ours.
            if member.network.bytes().all(|b| b.is_ascii_alphanumeric()) {
                self.networks
                    .entry(member.network.clone())
                    .or_default()
                    .refresh(&path(dir, &member.network));
            }
        }
    }

    pub(crate) fn upstreams(&self) -> &[SocketAddr] {
        if self.container.value.forward {
            &self.container.value.upstreams
        } else {
            &[]
        }
    }

    /// Whether a lower-case name that is nobody's here is nobody's at all.
    pub(crate) fn stays(&self, name: &str) -> bool {
        self.container.value.single_labels_stay && !name.contains('.')
    }

    /// The addresses of a lower-case name: the first network that knows it decides.
    pub(crate) fn addresses(&self, name: &str) -> Known {
        for member in &self.container.value.networks {
            let Some(table) = self.networks.get(&member.network).map(|c| &c.value) else {
                continue;
            };
            let bare = name
                .strip_suffix(&table.name.to_ascii_lowercase())
                .and_then(|n| n.strip_suffix('.'));
            for candidate in [Some(name), bare].into_iter().flatten() {
                let target = member.links.get(candidate).map_or(candidate, String::as_str);
                if let Some(addresses) = table.hosts.get(target).or_else(|| table.hosts.get(candidate)) {
                    return Known::Addresses(addresses.clone());
                }
            }
        }
        Known::Nothing
    }

    /// The full name of an address.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<String> {
        self.container.value.networks.iter().find_map(|member| {
            let table = &self.networks.get(&member.network)?.value;
            Some(format!("{}.{}", table.reverse.get(&address)?, table.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_network_that_knows_a_name_decides_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let container = path(dir.path(), "c1");
        let mut front = Network {
            name: "Front".into(),
            ..Network::default()
        };
        front
            .hosts
            .insert("web".into(), vec!["10.0.0.2".parse().unwrap()]);
        front.reverse.insert("10.0.0.2".parse().unwrap(), "web".into());
        let mut back = front.clone();
        back.name = "back".into();
        back.hosts.insert("web".into(), vec!["10.1.0.2".parse().unwrap()]);
        back.hosts.insert("db".into(), vec!["fd00::1".parse().unwrap()]);
        write(&path(dir.path(), "n1"), &front).unwrap();
        write(&path(dir.path(), "n2"), &back).unwrap();
        let links = BTreeMap::from([("database".to_owned(), "db".to_owned())]);
        let networks = vec![
            Membership {
                network: "n1".into(),
                links: BTreeMap::new(),
            },
            Membership {
                network: "n2".into(),
                links,
            },
            Membership {
                network: "../etc".into(),
                links: BTreeMap::new(),
            },
        ];
        write(
            &container,
            &Container {
                networks,
                upstreams: vec![],
                forward: true,
                single_labels_stay: false,
            },
        )
        .unwrap();

        let mut tables = Tables::new(container.clone());
        tables.refresh();
        let at = |text: &str| Known::Addresses(vec![text.parse().unwrap()]);
        assert_eq!(tables.addresses("web"), at("10.0.0.2"));
        assert_eq!(tables.addresses("web.front"), at("10.0.0.2"));
        assert_eq!(tables.addresses("web.back"), at("10.1.0.2"));
        assert_eq!(tables.addresses("database"), at("fd00::1"));
        assert_eq!(tables.addresses("front"), Known::Nothing);
        assert_eq!(
            tables.name_of("10.0.0.2".parse().unwrap()).as_deref(),
            Some("web.Front")
        );

        front.hosts.remove("web");
        write(&path(dir.path(), "n1"), &front).unwrap();
        tables.refresh();
        assert_eq!(tables.addresses("web"), at("10.1.0.2"));
        fs::remove_file(&container).unwrap();
        tables.refresh();
        assert_eq!(tables.addresses("web"), Known::Nothing);
    }
}
