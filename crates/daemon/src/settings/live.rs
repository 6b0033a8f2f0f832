//! Which settings a running daemon takes over, and which wait for the next one.

use engine::LiveConfig;
use engine::registry::ClientConfig;

use super::Settings;

impl Settings {
    /// What the engine takes over at SIGHUP.
    pub(crate) fn live(&self) -> LiveConfig {
        LiveConfig {
            labels: self.labels.clone(),
            log_driver: self.log_driver.clone(),
            log_opts: self.log_opts.clone(),
            init: self.init,
            registry: self.registry(),
            max_downloads: self.max_downloads,
            max_uploads: self.max_uploads,
            min_free: self.min_free,
            image_blobs: self.image_blobs,
            max_layer_size: self.max_layer_size,
            volume_trash_ttl: self.volume_trash_ttl,
            debug: self.debug,
        }
    }

    pub(crate) fn registry(&self) -> ClientConfig {
        ClientConfig {
            insecure: self.insecure_registries.clone(),
            mirrors: self.registry_mirrors.clone(),
            certs_d: self.certs_d.clone(),
            rules: self.registries.clone(),
            proxies: self.proxies.clone(),
            limit_rate: self.limit_rate,
            ..ClientConfig::default()
        }
    }

    /// The least important message that is logged.
    pub(crate) fn level(&self) -> &str {
        match self.debug {
            true => "debug",
            false => &self.log_level,
        }
    }

    /// The keys in which `next` differs and that count only at the next start.
    pub(crate) fn changed_for_next_start(&self, next: &Settings) -> Vec<&'static str> {
        let bridge = |settings: &Settings| format!("{:?}", settings.default_bridge);
        let tls = |settings: &Settings| format!("{:?}", settings.tls);
        let changed = [
            ("hosts", self.hosts != next.hosts),
            ("data-root", self.data_root != next.data_root),
            ("storage-driver", self.storage_driver != next.storage_driver),
            ("store-dedup", self.store_dedup != next.store_dedup),
            ("image-id", self.image_id != next.image_id),
            ("exec-root", self.exec_root != next.exec_root),
            ("pidfile", self.pidfile != next.pidfile),
            ("group", self.group != next.group),
            (
                "bridge, bip, fixed-cidr, fixed-cidr-v6, ipv6, default-gateway, ip, mtu, icc or ip-masq",
                bridge(self) != bridge(next),
            ),
            ("firewall", self.respect_host != next.respect_host),
            ("default-address-pools", self.address_pools != next.address_pools),
            (
                "default-publish-address",
                self.publish_address != next.publish_address,
            ),
            ("exec-opts", self.cgroup_driver != next.cgroup_driver),
            ("cgroup-parent", self.cgroup_parent != next.cgroup_parent),
            ("iptables", self.iptables != next.iptables),
            (
                "userns-remap, userns-pool or subid-dir",
                self.userns != next.userns,
            ),
            (
                "volume-plugin-dirs or volume-plugin-timeout",
                self.volume_plugins != next.volume_plugins,
            ),
            ("selinux-enabled", self.selinux != next.selinux),
            ("cdi-spec-dirs", self.cdi_spec_dirs != next.cdi_spec_dirs),
            (
                "build-cache-size, build-cache-free, build-cache-age or builder",
                self.build_cache != next.build_cache,
            ),
            ("log-budget", self.log_budget != next.log_budget),
            ("metrics-addr", self.metrics_addr != next.metrics_addr),
            ("log-format", self.log_format != next.log_format),
            (
                "tls, tlsverify, tlscacert, tlscert or tlskey",
                tls(self) != tls(next),
            ),
        ];
        changed
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}
