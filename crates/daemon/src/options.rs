//! The flags of `berth daemon`: dockerd's where the meaning is the same.

use std::path::PathBuf;

use clap::Parser;

/// Runs the engine in the foreground.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "berth daemon",
    version,
    about = "Run the container engine in the foreground"
)]
pub(crate) struct Options {
    /// Socket to listen on: unix:///path, tcp://host:port (repeatable)
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    pub(crate) hosts: Vec<String>,
    /// Where images, containers and volumes are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Where sockets and the state of running containers are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) exec_root: Option<PathBuf>,
    /// File that holds the daemon's process id
    #[arg(short = 'p', long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Group that owns the unix socket
    #[arg(short = 'G', long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// "none" turns the default network off
    #[arg(short = 'b', long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// Address and subnet of the default bridge, such as 192.168.5.1/24
    #[arg(long, value_name = "CIDR")]
    pub(crate) bip: Option<String>,
    /// Subnet of the default bridge that containers get addresses from
    #[arg(long, value_name = "CIDR")]
    pub(crate) fixed_cidr: Option<String>,
    /// Gateway of containers on the default bridge, when it is not the bridge
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) default_gateway: Option<String>,
    /// Give containers on the default bridge IPv6 addresses, too
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) ipv6: Option<bool>,
    /// IPv6 subnet of the default bridge (a unique local one if not set)
    #[arg(long, value_name = "CIDR")]
    pub(crate) fixed_cidr_v6: Option<String>,
    /// Where networks' subnets come from, such as base=10.10.0.0/16,size=24 (repeatable)
    #[arg(long = "default-address-pool", value_name = "POOL")]
    pub(crate) default_address_pools: Vec<String>,
    /// Largest packet on the default bridge
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Whether containers on the default bridge reach one another
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) icc: Option<bool>,
    /// Address that published ports listen on when none is given
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// Address that published ports of any network listen on when nothing else says (every address if not set)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) default_publish_address: Option<String>,
    /// "respect-host": other machines reach published ports only past the host's own input rules ("own" if not set)
    #[arg(long, value_name = "MODE")]
    pub(crate) firewall: Option<String>,
    /// Whether to write packet filter rules
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) iptables: Option<bool>,
    /// Whether to masquerade traffic of the default bridge
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) ip_masq: Option<bool>,
    /// Run containers in a user namespace with the subordinate ids of a user: default, USER[:GROUP] or UID[:GID]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) userns_remap: Option<String>,
    /// User whose subordinate ids are given to containers with --userns auto or keep-id ("containers" if not set)
    #[arg(long, value_name = "USER")]
    pub(crate) userns_pool: Option<String>,
    /// Directory of the files subuid and subgid (/etc if not set)
    #[arg(long, value_name = "DIR")]
    pub(crate) subid_dir: Option<PathBuf>,
    /// native.cgroupdriver=cgroupfs (the default), or =systemd where systemd makes the control groups
    #[arg(long = "exec-opt", value_name = "KEY=VALUE")]
    pub(crate) exec_opts: Vec<String>,
    /// Control group (or slice, with systemd) below which containers' groups are made unless they say otherwise
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Give every container an init process unless it says otherwise
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) init: Option<bool>,
    /// Give containers labels of SELinux, where the kernel has it in force
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) selinux_enabled: Option<bool>,
    /// Mirror of Docker Hub (repeatable)
    #[arg(long = "registry-mirror", value_name = "URL")]
    pub(crate) registry_mirrors: Vec<String>,
    /// Space on the disk that pulls, loads and builds leave free, such as 5g or 10%
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free: Option<String>,
    /// Most bytes a second of all pulls and pushes together, such as 10m
    #[arg(long, value_name = "SIZE")]
    pub(crate) limit_rate: Option<String>,
    /// Proxy for registries reached by plain HTTP (the environment's HTTP_PROXY if not set)
    #[arg(long, value_name = "URL")]
    pub(crate) http_proxy: Option<String>,
    /// Proxy for registries reached by HTTPS (the environment's HTTPS_PROXY if not set)
    #[arg(long, value_name = "URL")]
    pub(crate) https_proxy: Option<String>,
    /// Hosts reached without a proxy, separated by commas
    #[arg(long, value_name = "HOSTS")]
    pub(crate) no_proxy: Option<String>,
    /// Layers downloaded at once, over all pulls (3 unless given)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_downloads: Option<u32>,
    /// Blobs uploaded at once, in each push (5 unless given)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_concurrent_uploads: Option<u32>,
    /// Directory with descriptions of devices that containers ask for by name (repeatable)
    #[arg(long = "cdi-spec-dir", value_name = "DIR")]
    pub(crate) cdi_spec_dirs: Vec<String>,
    /// Registry to reach without verified TLS (repeatable)
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub(crate) insecure_registries: Vec<String>,
    /// How containers that name no driver are logged
    #[arg(long, value_name = "NAME")]
    pub(crate) log_driver: Option<String>,
    /// Options of the default log driver, key=value (repeatable)
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    pub(crate) log_opts: Vec<String>,
    /// How much all logs together may take, such as 2g; the oldest rotated files go first
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_budget: Option<String>,
    /// How much the build cache may take, such as 20g or 30%; what was used longest ago goes first (75% unless given, 0: no limit)
    #[arg(long, value_name = "SIZE")]
    pub(crate) build_cache_size: Option<String>,
    /// How much the build cache leaves free on the disk, such as 5g or 10% (2g unless given)
    #[arg(long, value_name = "SIZE")]
    pub(crate) build_cache_free: Option<String>,
    /// After how long unused parts of the build cache go, such as 168h
    #[arg(long, value_name = "DURATION")]
    pub(crate) build_cache_age: Option<String>,
    /// Which digest is an image's ID: of its manifest or index (manifest, the default), or of its configuration (config), as in
    /// Docker's older store
    #[arg(long, value_name = "KIND")]
    pub(crate) image_id: Option<String>,
    /// Most bytes that one layer may unpack to, such as 20g (128g unless given)
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_layer_size: Option<String>,
    /// Which compressed layers stay on the disk: keep (all, unless given), recipe (those that cannot be made again here; unless
    /// given with --store-dedup), or drop (those that can neither be made again nor fetched from their registry)
    #[arg(long, value_name = "POLICY")]
    pub(crate) image_blobs: Option<String>,
    /// How long removed volumes can be had back, such as 168h (24h unless given, 0: not at all)
    #[arg(long, value_name = "DURATION")]
    pub(crate) volume_trash_ttl: Option<String>,
    /// Directory in which volume plugins are found (repeatable)
    #[arg(long = "volume-plugin-dir", value_name = "DIR")]
    pub(crate) volume_plugin_dirs: Vec<String>,
    /// How long a volume plugin may take for a call (60s unless given)
    #[arg(long, value_name = "DURATION")]
    pub(crate) volume_plugin_timeout: Option<String>,
    /// Address that serves metrics for Prometheus at /metrics, such as 127.0.0.1:9323; without TLS, for all who reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics_addr: Option<String>,
    /// Label of the daemon, key=value (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Storage driver: overlay, vfs (layers are copied), or auto, which takes overlay where the filesystem carries it
    #[arg(short = 's', long, value_name = "NAME")]
    pub(crate) storage_driver: Option<String>,
    /// Keep files that are equal in several layers once, on the disk and in memory (Linux 6.7, storage driver overlay)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) store_dedup: Option<bool>,
    /// Serve TCP over TLS
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) tls: Option<bool>,
    /// Serve TCP over TLS to clients that prove who they are
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) tlsverify: Option<bool>,
    /// Certificate authority that clients' certificates come from
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate of the daemon
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key of the daemon
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Say more in the log
    #[arg(short = 'D', long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub(crate) debug: Option<bool>,
    /// error, warn, info or debug
    #[arg(short = 'l', long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(crate) validate: bool,
}
