//! Flags and `daemon.json` made into one set of settings.
//!
//! Docker's rules: an unknown key in the file is an error, and so is an option given in both places, since
//! nobody could say which one counts. Lists from both places are one of those conflicts too.

mod cache;
mod file;
mod live;
mod network;
mod userns;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::network::{AddressPool, DefaultBridge};
use engine::cgroup::Driver;
use spec::Instance;

use crate::options::Options;
use file::File;

const DEFAULT_FILE: &str = "/etc/berth/daemon.json";

/// Everything the daemon is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) hosts: Vec<String>,
    pub(crate) data_root: PathBuf,
    pub(crate) storage_driver: engine::store::StorageDriver,
    pub(crate) store_dedup: bool,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) group: Option<String>,
    pub(crate) instance: Instance,
    pub(crate) default_bridge: DefaultBridge,
    pub(crate) publish_address: Option<std::net::IpAddr>,
    pub(crate) address_pools: Vec<AddressPool>,
    pub(crate) respect_host: bool,
    pub(crate) iptables: bool,
    pub(crate) init: bool,
    pub(crate) cgroup_driver: Driver,
    pub(crate) userns: engine::userns::Settings,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registries: Vec<registry::Rule>,
    pub(crate) proxies: registry::Proxies,
    /// Most bytes a second of all pulls and pushes together.
    pub(crate) limit_rate: Option<u64>,
    /// Where certificates for registries are looked for: beside the configuration file, then Docker's place.
    pub(crate) certs_d: Vec<PathBuf>,
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    pub(crate) selinux: bool,
    pub(crate) min_free: engine::store::MinFree,
    pub(crate) image_id: image::ImageIds,
    pub(crate) image_blobs: image::BlobPolicy,
    /// Most bytes of one layer, unpacked.
    pub(crate) max_layer_size: u64,
    pub(crate) volume_trash_ttl: Duration,
    pub(crate) volume_plugins: engine::volume::PluginSettings,
    pub(crate) max_downloads: usize,
    pub(crate) max_uploads: usize,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) cgroup_parent: String,
    pub(crate) log_budget: Option<u64>,
    pub(crate) build_cache: cache::BuildCache,
    pub(crate) metrics_addr: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) debug: bool,
    pub(crate) log_level: String,
    pub(crate) log_format: String,
    pub(crate) validate: bool,
}

/// TLS for the TCP listeners.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Present where clients must prove who they are.
    pub(crate) client_ca: Option<PathBuf>,
}

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not a JSON object: {reason}")]
    Json { path: PathBuf, reason: String },
    #[error("the configuration file {path} has keys this daemon does not know: {keys}")]
    Unknown { path: PathBuf, keys: String },
    #[error("the following directives are specified both as a flag and in the configuration file: {0}")]
    Both(String),
    #[error("{0}")]
    Log(String),
    #[error("{0}")]
    Registry(String),
    #[error("configuration key {key}: expected {expected}")]
    Type { key: String, expected: &'static str },
    #[error("invalid value {value:?} for {option}: {reason}")]
    Value {
        option: &'static str,
        value: String,
        reason: String,
    },
}

impl Settings {
    /// Reads the file and joins it with the flags.
    pub(crate) fn load(options: Options) -> Result<Settings, SettingsError> {
        let mut file = File::read(options.config_file.as_deref())?;
        let default_bridge = network::bridge(&mut file, &options)?;
        let address_pools = network::address_pools(&mut file, &options.default_address_pools)?;
        let data_root = file
            .path("data-root", options.data_root)?
            .unwrap_or_else(Instance::default_root);
        let data_root = std::path::absolute(&data_root).unwrap_or(data_root);
        let instance = Instance::of_root(&data_root);
        let exec_root = file
            .path("exec-root", options.exec_root)?
            .unwrap_or_else(|| instance.run_dir());
        let pidfile = file
            .path("pidfile", options.pidfile)?
            .unwrap_or_else(|| exec_root.join("berth.pid"));
        let mut hosts = file.list("hosts", options.hosts)?;
        if hosts.is_empty() {
            hosts.push(format!("unix://{}", exec_root.join("berth.sock").display()));
        }
        let driver = file
            .text("storage-driver", options.storage_driver)?
            .unwrap_or_default();
        let storage_driver = driver.parse().map_err(|reason| SettingsError::Value {
            option: "--storage-driver",
            value: driver.clone(),
            reason,
        })?;
        let store_dedup = file.boolean("store-dedup", options.store_dedup)?.unwrap_or(false);
        let tls = tls(
            &mut file,
            options.tls,
            options.tlsverify,
            options.tlscacert,
            options.tlscert,
            options.tlskey,
        )?;
        let mut log_opts = file.map("log-opts", &options.log_opts)?;
        let log_driver = file
            .text("log-driver", options.log_driver)?
            .unwrap_or_else(|| "json-file".to_owned());
        if log_driver == "json-file" && log_opts.is_empty() {
            // Logs that grow for ever are the commonest way to fill a disk.
            log_opts.insert("max-size".to_owned(), "100m".to_owned());
            log_opts.insert("max-file".to_owned(), "3".to_owned());
        }
        engine::check_log_settings(&log_driver, &log_opts)
            .map_err(|error| SettingsError::Log(error.message))?;
        let log_budget = size(&mut file, "log-budget", options.log_budget)?;
        let build_cache = cache::settings(
            &mut file,
            options.build_cache_size,
            options.build_cache_free,
            options.build_cache_age,
        )?;
        let metrics_addr = file.text("metrics-addr", options.metrics_addr)?;
        let userns = userns::settings(
            &mut file,
            options.userns_remap,
            options.userns_pool,
            options.subid_dir,
        )?;
        let cgroup_driver = cgroup_driver(&file.list("exec-opts", options.exec_opts)?)?;
        let cgroup_parent = file
            .text("cgroup-parent", options.cgroup_parent)?
            .unwrap_or_default();
        engine::check_cgroup_parent(cgroup_driver, &cgroup_parent).map_err(|error| SettingsError::Value {
            option: "cgroup-parent",
            value: cgroup_parent.clone(),
            reason: error.message,
        })?;
        let settings = Settings {
            userns,
            group: file.text("group", options.group)?,
            address_pools,
            respect_host: network::respects_host(&mut file, options.firewall)?,
            publish_address: parse(
                "--default-publish-address",
                file.text("default-publish-address", options.default_publish_address)?,
            )?,
            iptables: file.boolean("iptables", options.iptables)?.unwrap_or(true),
            cgroup_driver,
            cgroup_parent,
            init: file.boolean("init", options.init)?.unwrap_or(false),
            registry_mirrors: file.list("registry-mirrors", options.registry_mirrors)?,
            certs_d: certs_d(options.config_file.as_deref()),
            cdi_spec_dirs: directories(file.list("cdi-spec-dirs", options.cdi_spec_dirs)?),
            selinux: file
                .boolean("selinux-enabled", options.selinux_enabled)?
                .unwrap_or(false),
            insecure_registries: file.list("insecure-registries", options.insecure_registries)?,
            registries: file.rules("registries")?,
            proxies: file.proxies(options.http_proxy, options.https_proxy, options.no_proxy)?,
            limit_rate: size(&mut file, "limit-rate", options.limit_rate)?,
            min_free: min_free(&mut file, options.min_free)?,
            image_id: parse("--image-id", file.text("image-id", options.image_id)?)?.unwrap_or_default(),
            max_layer_size: size(&mut file, "max-layer-size", options.max_layer_size)?
                .unwrap_or(image::MAX_LAYER),
            image_blobs: parse("--image-blobs", file.text("image-blobs", options.image_blobs)?)?
                .unwrap_or(image::BlobPolicy::unless_said(store_dedup)),
            volume_trash_ttl: volume_trash_ttl(&mut file, options.volume_trash_ttl)?,
            volume_plugins: volume_plugins(
                &mut file,
                options.volume_plugin_dirs,
                options.volume_plugin_timeout,
            )?,
            max_downloads: most(
                &mut file,
                "max-concurrent-downloads",
                options.max_concurrent_downloads,
            )?
            .unwrap_or(image::MAX_DOWNLOADS),
            max_uploads: most(
                &mut file,
                "max-concurrent-uploads",
                options.max_concurrent_uploads,
            )?
            .unwrap_or(image::MAX_UPLOADS),
            labels: labels(file.list("labels", options.labels)?)?,
            debug: file.boolean("debug", options.debug)?.unwrap_or(false),
            log_level: file
                .text("log-level", options.log_level)?
                .unwrap_or_else(|| "info".to_owned()),
            log_format: file
                .text("log-format", options.log_format)?
                .unwrap_or_else(|| "text".to_owned()),
            validate: options.validate,
            hosts,
            data_root,
            storage_driver,
            store_dedup,
            exec_root,
            pidfile,
            instance,
            default_bridge,
            log_driver,
            log_opts,
            log_budget,
            build_cache,
            metrics_addr,
            tls,
        };
        if !file.both.is_empty() {
            return Err(SettingsError::Both(file.both.join(", ")));
        }
        if !file.keys.is_empty() {
            let path = options.config_file.unwrap_or_else(|| DEFAULT_FILE.into());
            let keys: Vec<&str> = file.keys.keys().map(String::as_str).collect();
            return Err(SettingsError::Unknown {
                path,
                keys: keys.join(", "),
            });
        }
        if !matches!(
            settings.log_level.as_str(),
            "error" | "warn" | "info" | "debug" | "trace"
        ) {
            return Err(SettingsError::Value {
                option: "--log-level",
                value: settings.log_level,
                reason: "expected error, warn, info or debug".to_owned(),
            });
        }
        settings
            .registry()
            .validate()
            .map_err(|error| SettingsError::Registry(error.to_string()))?;
        Ok(settings)
    }
}

/// A number of bytes, such as `2g`.
fn size(file: &mut File, key: &'static str, flag: Option<String>) -> Result<Option<u64>, SettingsError> {
    let Some(text) = file.text(key, flag)? else {
        return Ok(None);
    };
    match engine::monitor::log::binary_size(&text) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) => Err(SettingsError::Value {
            option: key,
            value: text,
            reason: reason.to_owned(),
        }),
    }
}

/// A percentage of the disk, or a number of bytes.
fn min_free(file: &mut File, flag: Option<String>) -> Result<engine::store::MinFree, SettingsError> {
    let Some(text) = file.text("min-free", flag)? else {
        return Ok(engine::store::MinFree::default());
    };
    let read = match text.ends_with('%') {
        true => text.parse(),
        false if text == "0" => Ok(engine::store::MinFree::default()),
        false => engine::monitor::log::binary_size(&text).map(engine::store::MinFree::Bytes),
    };
    read.map_err(|reason| SettingsError::Value {
        option: "min-free",
        value: text,
        reason: reason.to_owned(),
    })
}

/// Docker's directories unless others are named.
fn volume_plugins(
    file: &mut File,
    directories: Vec<String>,
    timeout: Option<String>,
) -> Result<engine::volume::PluginSettings, SettingsError> {
    let mut plugins = engine::volume::PluginSettings::default();
    let named = file.list("volume-plugin-dirs", directories)?;
    if !named.is_empty() {
        plugins.directories = named.into_iter().map(PathBuf::from).collect();
    }
    if let Some(text) = file.text("volume-plugin-timeout", timeout)? {
        let read = cache::age("volume-plugin-timeout", &text)?;
        plugins.timeout = read.ok_or_else(|| SettingsError::Value {
            option: "volume-plugin-timeout",
            value: text,
            reason: "expected a duration such as 60s".to_owned(),
        })?;
    }
    Ok(plugins)
}

/// How long removed volumes are kept.
fn volume_trash_ttl(file: &mut File, flag: Option<String>) -> Result<Duration, SettingsError> {
    match file.text("volume-trash-ttl", flag)? {
        None => Ok(engine::DEFAULT_VOLUME_TRASH_TTL),
        Some(text) => Ok(cache::age("volume-trash-ttl", &text)?.unwrap_or_default()),
    }
}

/// The one option there is of how containers are run; the last word counts.
fn cgroup_driver(options: &[String]) -> Result<Driver, SettingsError> {
    let mut chosen = Driver::default();
    for option in options {
        let driver = match option.split_once('=') {
            Some(("native.cgroupdriver", name)) => {
                Driver::ALL.into_iter().find(|driver| driver.name() == name)
            }
            _ => None,
        };
        chosen = driver.ok_or_else(|| SettingsError::Value {
            option: "--exec-opt",
            value: option.clone(),
            reason: "expected native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd".to_owned(),
        })?;
    }
    Ok(chosen)
}

/// How many things are done at once.
fn most(file: &mut File, key: &'static str, flag: Option<u32>) -> Result<Option<usize>, SettingsError> {
    match file.number(key, flag)? {
        Some(0) => Err(SettingsError::Value {
            option: key,
            value: "0".to_owned(),
            reason: "expected at least 1".to_owned(),
        }),
        number => Ok(number.and_then(|number| usize::try_from(number).ok())),
    }
}

fn labels(labels: Vec<String>) -> Result<Vec<String>, SettingsError> {
    match labels.iter().find(|label| !label.contains('=')) {
        Some(label) => Err(SettingsError::Value {
            option: "--label",
            value: label.clone(),
            reason: "expected key=value".to_owned(),
        }),
        None => Ok(labels),
    }
}

fn certs_d(config_file: Option<&Path>) -> Vec<PathBuf> {
    let file = config_file.unwrap_or(Path::new(DEFAULT_FILE));
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    vec![
        file.with_file_name("certs.d"),
        PathBuf::from("/etc/docker/certs.d"),
    ]
}

/// Where devices are described: the customary places unless others are named; an empty name is none.
fn directories(named: Vec<String>) -> Vec<PathBuf> {
    match named.is_empty() {
        true => vec![PathBuf::from("/etc/cdi"), PathBuf::from("/var/run/cdi")],
        false => named
            .iter()
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
    }
}

fn parse<T: std::str::FromStr>(
    option: &'static str,
    value: Option<String>,
) -> Result<Option<T>, SettingsError>
where
    T::Err: std::fmt::Display,
{
    let wrong = |value: &str, error: T::Err| SettingsError::Value {
        option,
        value: value.to_owned(),
        reason: error.to_string(),
    };
    value
        .map(|text| text.parse().map_err(|error| wrong(&text, error)))
        .transpose()
}

fn tls(
    file: &mut File,
    tls: Option<bool>,
    tlsverify: Option<bool>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<Tls>, SettingsError> {
    let verify = file.boolean("tlsverify", tlsverify)?.unwrap_or(false);
    let on = file.boolean("tls", tls)?.unwrap_or(false) || verify;
    let ca = file.path("tlscacert", ca)?;
    let cert = file.path("tlscert", cert)?;
    let key = file.path("tlskey", key)?;
    if !on {
        return Ok(None);
    }
    let needed = |option: &'static str, path: Option<PathBuf>| {
        path.ok_or_else(|| SettingsError::Value {
            option,
            value: String::new(),
            reason: "TLS needs the path of a PEM file".to_owned(),
        })
    };
    Ok(Some(Tls {
        cert: needed("--tlscert", cert)?,
        key: needed("--tlskey", key)?,
        client_ca: if verify {
            Some(needed("--tlscacert", ca)?)
        } else {
            None
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(json: &str, change: impl FnOnce(&mut Options)) -> Result<Settings, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        let mut options = Options {
            config_file: Some(file.path().to_owned()),
            ..Options::default()
        };
        change(&mut options);
        Settings::load(options)
    }

    #[test]
    fn defaults_rotate_logs_and_follow_the_root() {
        let settings = load("{}", |o| o.data_root = Some("/x".into())).unwrap();
        assert_eq!(settings.log_opts["max-size"], "100m");
        assert_eq!(settings.exec_root, settings.instance.run_dir());
        assert!(settings.hosts[0].starts_with("unix:///run/berth-"));
    }

    #[test]
    fn a_store_that_keeps_files_once_keeps_no_layer_twice() {
        let policy = |json: &str, dedup: Option<bool>| {
            let settings = load(json, |options| options.store_dedup = dedup).unwrap();
            settings.image_blobs.name()
        };
        assert_eq!(policy("{}", None), "keep");
        assert_eq!(policy("{}", Some(true)), "recipe");
        assert_eq!(policy(r#"{"store-dedup": true}"#, None), "recipe");
        assert_eq!(policy(r#"{"store-dedup": false}"#, None), "keep");
        assert_eq!(policy(r#"{"image-blobs": "keep"}"#, Some(true)), "keep");
        assert_eq!(policy(r#"{"image-blobs": "drop"}"#, Some(true)), "drop");
    }

    #[test]
    fn certificates_lie_beside_the_configuration() {
        assert_eq!(certs_d(None)[0], Path::new("/etc/berth/certs.d"));
        assert_eq!(
            certs_d(Some(Path::new("/x/daemon.json")))[0],
            Path::new("/x/certs.d")
        );
    }

    #[test]
    fn settings_of_networks_are_read_and_checked() {
        let settings = load(
            r#"{"default-address-pools":[{"base":"10.10.0.0/16","size":24}],"firewall":"respect-host",
                "default-publish-address":"127.0.0.1","ipv6":true,"fixed-cidr-v6":"fd00:1::/64",
                "default-gateway":"172.17.0.9"}"#,
            |_| {},
        )
        .unwrap();
        assert_eq!(settings.address_pools[0].base.to_string(), "10.10.0.0/16");
        assert_eq!(
            (settings.address_pools[0].size, settings.respect_host),
            (24, true)
        );
        assert_eq!(settings.publish_address.unwrap().to_string(), "127.0.0.1");
        assert!(settings.default_bridge.enable_ipv6 && settings.default_bridge.default_gateway.is_some());
        let flags = load("{}", |o| {
            o.default_address_pools = vec!["base=fd00:2::/48,size=64".into()]
        });
        assert_eq!(flags.unwrap().address_pools[0].size, 64);
        for (json, words) in [
            (r#"{"firewall":"on"}"#, "own or respect-host"),
            (
                r#"{"default-address-pools":[{"base":"10.0.0.0/16","size":8}]}"#,
                "from 16",
            ),
            (
                r#"{"default-address-pools":[{"base":"10.0.0.0/16"}]}"#,
                "\"size\"",
            ),
            (r#"{"default-address-pools":["10.0.0.0/16"]}"#, "\"base\""),
            (r#"{"fixed-cidr-v6":"10.0.0.0/24"}"#, "IPv4"),
            (r#"{"default-publish-address":"eth0"}"#, "eth0"),
        ] {
            let wrong = load(json, |_| {}).unwrap_err().to_string();
            assert!(wrong.contains(words), "{wrong}");
        }
        let wrong = load("{}", |o| o.default_address_pools = vec!["10.0.0.0/16".into()]).unwrap_err();
        assert!(wrong.to_string().contains("base=CIDR,size=LENGTH"), "{wrong}");
    }

    #[test]
    fn the_driver_of_control_groups_is_chosen() {
        let systemd = load(r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#, |_| {}).unwrap();
        assert_eq!(systemd.cgroup_driver, Driver::Systemd);
        assert_eq!(load("{}", |_| {}).unwrap().cgroup_driver, Driver::Cgroupfs);
        for bad in [
            "native.cgroupdriver=magic",
            "native.cgroupdriver",
            "isolation=process",
        ] {
            let error = load("{}", |options| options.exec_opts = vec![bad.to_owned()]).unwrap_err();
            assert!(
                error.to_string().contains("native.cgroupdriver=systemd"),
                "{error}"
            );
        }
    }

    #[test]
    fn settings_of_logs_are_checked() {
        let wrong = load(r#"{"log-driver":"gelf"}"#, |_| {}).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "failed to set log opts: gelf-address is a required parameter"
        );
        assert_eq!(
            load(r#"{"log-budget":"2g"}"#, |_| {}).unwrap().log_budget,
            Some(2 << 30)
        );
        let wrong = load(r#"{"log-budget":"much"}"#, |_| {}).unwrap_err().to_string();
        assert!(wrong.contains("log-budget"), "{wrong}");
    }

    #[test]
    fn the_file_is_read_strictly() {
        assert_eq!(
            load(r#"{"hosts":["tcp://127.0.0.1:1"]}"#, |_| {}).unwrap().hosts,
            ["tcp://127.0.0.1:1"]
        );
        let unknown = load(r#"{"nope":1}"#, |_| {}).unwrap_err().to_string();
        assert!(unknown.contains("nope"), "{unknown}");
        let both = load(r#"{"debug":true}"#, |o| o.debug = Some(false))
            .unwrap_err()
            .to_string();
        assert!(both.ends_with("configuration file: debug"), "{both}");
        assert!(load(r#"{"debug":"yes"}"#, |_| {}).is_err());
        assert!(load("[1]", |_| {}).is_err());
        assert!(load(r#"{"bip":"300.1.1.1/24"}"#, |_| {}).is_err());
        assert!(load("", |_| {}).is_ok());
    }
}
