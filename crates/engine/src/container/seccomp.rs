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
    listener_metadata: Option<String>,
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

/// Reads a profile for a container that holds `capabilities`. A profile without default and rules asks for no filter.
pub(super) fn read(text: &str, capabilities: &[String]) -> Result<Option<Seccomp>, String> {
    let profile: Profile =
        serde_json::from_str(text).map_err(|error| format!("Decoding seccomp profile failed: {error}"))?;
    if profile.default_action.is_empty() && profile.syscalls.as_ref().is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let platform = spec::Platform::host();
    let host = Host {
        arch: &platform.architecture,
        capabilities,
        kernel: version(&release).unwrap_or((0, 0)),
    };
    let document = convert(profile, &host)?;
    // What cannot be compiled is refused before a container is made.
    runtime::seccomp::compile(&document).map_err(|error| format!("seccomp profile: {error}"))?;
    Ok(Some(document))
}

fn convert(profile: Profile, host: &Host<'_>) -> Result<Seccomp, String> {
    if profile.default_action.is_empty() {
        return Err("the seccomp profile has rules but no defaultAction".to_owned());
    }
    let map = profile.arch_map.unwrap_or_default();
    let named = profile.architectures.unwrap_or_default();
    if !map.is_empty() && !named.is_empty() {
        return Err(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or \
             'archMap'"
                .to_owned(),
        );
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
                return Err(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
                        .to_owned(),
                );
            }
            names.push(rule.name);
        }
        let counts = rule
            .includes
            .as_ref()
            .map_or(Ok(true), |c| holds(c, host, true))?
            && !rule
                .excludes
                .as_ref()
                .map_or(Ok(false), |c| holds(c, host, false))?;
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
        listener_path: profile.listener_path,
        listener_metadata: profile.listener_metadata,
        syscalls,
    })
}

/// An inclusion needs every condition it names; an exclusion is met by any one of them.
fn holds(condition: &Condition, host: &Host<'_>, all: bool) -> Result<bool, String> {
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
        .map(|text| {
            let least = version(text).ok_or_else(|| {
                format!("invalid kernel version {text:?} in the seccomp profile, use \"4.8\"")
            })?;
            Ok::<_, String>(host.kernel >= least)
        })
        .transpose()?;
    let mut named = [arches, caps, kernel].into_iter().flatten();
    Ok(if all {
        named.all(|met| met)
    } else {
        named.any(|met| met)
    })
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
        assert_eq!(read("{}", &[]), Ok(None));
    }

    #[test]
    fn what_cannot_be_meant() {
        let message = |text: &str| read(text, &[]).unwrap_err();
        let both = |what: &str| format!("both {what}");
        for (text, start) in [
            (
                r#"{"defaultAction":"SCMP_ACT_NOPE"}"#,
                "seccomp profile: ".to_owned(),
            ),
            (
                r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "the seccomp profile has rules".to_owned(),
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                    "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
                both("'architectures'"),
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                both("'name'"),
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW",
                    "includes":{"minKernel":"new"}}]}"#,
                "invalid kernel version".to_owned(),
            ),
        ] {
            assert!(message(text).starts_with(&start), "{}", message(text));
        }
    }

    #[test]
    fn exclusions_by_kernel_and_architecture_and_the_old_form() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"name":"old","action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":7,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["b"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"excludes":{"minKernel":"6.1"}},
            {"names":["c"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
            {"names":["d"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.2"},"includes":{"arches":["amd64","arm64"]}}]}"#;
        let host = Host {
            arch: "amd64",
            capabilities: &[],
            kernel: (6, 1),
        };
        let profile = convert(serde_json::from_str(text).unwrap(), &host).unwrap();
        let names: Vec<&str> = profile
            .syscalls
            .iter()
            .flat_map(|s| s.names.iter().map(String::as_str))
            .collect();
        assert_eq!(names, ["old", "d"]);
        assert_eq!(profile.default_errno_ret, Some(38));
        assert_eq!(profile.syscalls[0].args[0].value_two, 1);
    }
}
