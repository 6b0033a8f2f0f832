//! Build arguments: who gives a value, and who sees it.
//!
//! Order of values in a stage: the client's, the ARG's own default, the global ARG of the same name, the
//! platform's. An ENV of the same name hides it. Proxy variables reach commands without being declared, and
//! then neither the cache nor the history knows of them.

use std::collections::{BTreeMap, BTreeSet};

use spec::Platform;

/// Arguments that commands get without an ARG.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// Arguments that mean something to the builder itself, so nobody has to declare them.
const BUILDERS: [&str; 8] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

/// Arguments that tell about platform and target; a stage that declares one gets it.
pub const PREDEFINED: [&str; 9] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Whether FROM knows the argument although nobody declares it.
pub fn is_platform_argument(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

/// The values that a build starts with.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    given: BTreeMap<String, String>,
    global: BTreeMap<String, String>,
    platform: BTreeMap<&'static str, String>,
    used: BTreeSet<String>,
}

impl Arguments {
    /// `given` are the client's; a name without a value leaves the default. `stage` is the target as it was asked for.
    pub fn new(
        given: &BTreeMap<String, Option<String>>,
        build: &Platform,
        target: &Platform,
        stage: Option<&str>,
    ) -> Arguments {
        let mut platform = BTreeMap::new();
        let parts = |platform: &Platform| {
            let variant = platform.variant.clone().unwrap_or_default();
            (
                platform.to_string(),
                platform.os.clone(),
                platform.architecture.clone(),
                variant,
            )
        };
        let (whole, os, arch, variant) = parts(build);
        platform.insert("BUILDPLATFORM", whole);
        platform.insert("BUILDOS", os);
        platform.insert("BUILDARCH", arch);
        platform.insert("BUILDVARIANT", variant);
        let (whole, os, arch, variant) = parts(target);
        platform.insert("TARGETPLATFORM", whole);
        platform.insert("TARGETOS", os);
        platform.insert("TARGETARCH", arch);
        platform.insert("TARGETVARIANT", variant);
        let stage = stage.filter(|stage| !stage.is_empty()).unwrap_or("default");
        platform.insert("TARGETSTAGE", stage.to_owned());
        let given = given
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect();
        Arguments {
            given,
            global: BTreeMap::new(),
            platform,
            used: BTreeSet::new(),
        }
    }

    /// Declares a global argument.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) {
        self.used.insert(name.to_owned());
        if let Some(value) = self.given.get(name).cloned().or(default) {
            self.global.insert(name.to_owned(), value);
        }
    }

    /// A variable as FROM sees it.
    pub fn global(&self, name: &str) -> Option<String> {
        self.global.get(name).or_else(|| self.platform.get(name)).cloned()
    }

    /// The value of an argument that a stage declares.
    pub fn value(&mut self, name: &str, default: Option<String>) -> Option<String> {
        self.used.insert(name.to_owned());
        let known = || self.global.get(name).or_else(|| self.platform.get(name)).cloned();
        self.given.get(name).cloned().or(default).or_else(known)
    }

    /// The proxy variables that were given, under both spellings that programs look for.
    pub fn proxies(&self) -> Vec<(String, String)> {
        let value = |name: &str| {
            let other = |known: &&&str| known.eq_ignore_ascii_case(name);
            let given = || {
                PROXIES
                    .iter()
                    .filter(other)
                    .find_map(|known| self.given.get(*known))
            };
            self.given.get(name).or_else(given).cloned()
        };
        let given = PROXIES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), value(name)?)));
        given.collect()
    }

    /// The client's value of an argument for the builder itself.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// What the client gave, an ARG declared, and its name says is a secret.
    pub fn secret_names(&self) -> Vec<String> {
        let secret = |name: &&String| self.used.contains(*name) && crate::lint::looks_secret(name);
        self.given.keys().filter(secret).cloned().collect()
    }

    /// What the client gave and no ARG declared.
    pub fn unused(&self) -> Vec<String> {
        let known = |name: &str| {
            PROXIES.contains(&name) || BUILDERS.contains(&name) || self.platform.contains_key(name)
        };
        self.given
            .keys()
            .filter(|name| !self.used.contains(*name) && !known(name))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_the_value() {
        let given = BTreeMap::from([
            ("A".to_owned(), Some("client".to_owned())),
            ("EMPTY".to_owned(), None),
            ("http_proxy".to_owned(), Some("p".to_owned())),
            ("LOST".to_owned(), Some("x".to_owned())),
        ]);
        let host = Platform::new("linux", "amd64", None);
        let target = Platform::new("linux", "arm", Some("v7"));
        let mut arguments = Arguments::new(&given, &host, &target, None);
        arguments.declare_global("G", Some("global".into()));
        assert_eq!(
            arguments.value("A", Some("default".into())).as_deref(),
            Some("client")
        );
        assert_eq!(
            arguments.value("B", Some("default".into())).as_deref(),
            Some("default")
        );
        assert_eq!(arguments.value("G", None).as_deref(), Some("global"));
        assert_eq!(arguments.value("G", Some("own".into())).as_deref(), Some("own"));
        assert_eq!(arguments.value("EMPTY", None), None);
        assert_eq!(arguments.value("TARGETVARIANT", None).as_deref(), Some("v7"));
        assert_eq!(arguments.global("BUILDPLATFORM").as_deref(), Some("linux/amd64"));
        let proxy = |name: &str| (name.to_owned(), "p".to_owned());
        assert_eq!(arguments.proxies(), [proxy("HTTP_PROXY"), proxy("http_proxy")]);
        assert_eq!(arguments.unused(), ["LOST"]);
    }
}
