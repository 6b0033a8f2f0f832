//! `--security-opt seccomp=FILE`: profiles in Docker's JSON, turned into the runtime's document.
//!
//! Docker's format is the OCI one plus conditions: a rule counts only on certain architectures, with certain
//! capabilities, from a kernel version on (`includes`), or unless they hold (`excludes`), and architectures come
//! with those they imply (`archMap`).

use serde::Deserialize;
use spec::runtime::{Seccomp, SeccompArg, SeccompSyscall};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<Rule>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<SeccompArg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    arches: Option<Vec<String>>,
    caps: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What a profile is judged against.
struct Host<'a> {
    arch: &'a str,
    capabilities: &'a [String],
    kernel: (u32, u32),
}

/// Reads a profile for a container that holds `capabilities`.
pub(super) fn read(text: &str, capabilities: &[String]) -> Result<Seccomp, String> {
    let profile: Profile =
        serde_json::from_str(text).map_err(|error| format!("decoding seccomp profile failed: {error}"))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let platform = spec::Platform::host();
    let host = Host {
        arch: &platform.architecture,
        capabilities,
        kernel: version(&release).unwrap_or((0, 0)),
    };
    convert(profile, &host)
}

fn convert(profile: Profile, host: &Host<'_>) -> Result<Seccomp, String> {
    if profile.default_action.is_empty() {
        return Err("the profile has no defaultAction".to_owned());
    }
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err(
            "listenerPath is not offered: a profile of the engine cannot hand decisions to another program"
                .to_owned(),
        );
    }
    let map = profile.arch_map.unwrap_or_default();
    let named = profile.architectures.unwrap_or_default();
    if !map.is_empty() && !named.is_empty() {
        return Err("use either architectures or archMap, not both".to_owned());
    }
    let native = match host.arch {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        other => return Err(format!("no seccomp architecture is known for {other}")),
    };
    let mut architectures = named;
    for entry in map.into_iter().filter(|entry| entry.architecture == native) {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures.unwrap_or_default());
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        let mut names = rule.names.unwrap_or_default();
        if !rule.name.is_empty() {
            if !names.is_empty() {
                return Err(format!("a rule has both name ({}) and names", rule.name));
            }
            names.push(rule.name);
        }
        let counts = rule.includes.as_ref().is_none_or(|c| holds(c, host, true))
            && rule.excludes.as_ref().is_none_or(|c| !holds(c, host, false));
        if counts {
            let args = rule.args.unwrap_or_default();
            syscalls.push(SeccompSyscall {
                names,
                action: rule.action,
                errno_ret: rule.errno_ret,
                args,
            });
        }
    }
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags.unwrap_or_default(),
        syscalls,
        ..Seccomp::default()
    })
}

/// An inclusion needs every condition it names; an exclusion is met by any one of them.
fn holds(condition: &Condition, host: &Host<'_>, all: bool) -> bool {
    let arches = condition
        .arches
        .as_ref()
        .filter(|a| !a.is_empty())
        .map(|a| a.iter().any(|a| a == host.arch));
    let caps = condition
        .caps
        .as_ref()
        .filter(|c| !c.is_empty())
        .map(|caps| match all {
            true => caps.iter().all(|c| host.capabilities.contains(c)),
            false => caps.iter().any(|c| host.capabilities.contains(c)),
        });
    let kernel = condition
        .min_kernel
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(|text| version(text).is_some_and(|least| host.kernel >= least));
    let mut named = [arches, caps, kernel].into_iter().flatten();
    if all {
        named.all(|met| met)
    } else {
        named.any(|met| met)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64",
            "subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[
            {"names":["a"],"action":"SCMP_ACT_ALLOW"},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["c"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}},
            {"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["e"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}}]}"#;
        let caps = ["CAP_CHOWN".to_owned()];
        let host = Host {
            arch: "amd64",
            capabilities: &caps,
            kernel: (6, 1),
        };
        let profile = convert(serde_json::from_str(text).unwrap(), &host).unwrap();
        let names: Vec<&str> = profile
            .syscalls
            .iter()
            .flat_map(|s| s.names.iter().map(String::as_str))
            .collect();
        assert_eq!(names, ["a", "d"]);
        assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        assert!(read("{", &[]).is_err());
        assert!(read("{}", &[]).is_err());
    }
}
