//! Commands and what is mounted for them.

use bollard_buildkit_proto::pb::{
    CacheSharingOpt, ExecOp, Meta, Mount as Mounted, MountType, NetMode, SecurityMode,
};
use build::instruction::{Mount, MountKind, RunNetwork, Sharing};
use build::pattern::clean;
use build::recipe::{Exec, ExecMount};

use super::read::Place;
use crate::error::Failure;

/// The path of programs where a command's environment has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn refused(what: &str) -> Failure {
    Failure::unimplemented(format!("{what} of a command in a definition is not offered"))
}

pub fn read(op: &ExecOp, place: &Place<'_>) -> Result<Exec, Failure> {
    let meta = op.meta.clone().unwrap_or_default();
    if meta.args.is_empty() {
        return Err(Failure::invalid("a command of the definition has no arguments"));
    }
    if !meta.ulimit.is_empty() {
        return Err(refused("a limit (ulimit)"));
    }
    if op.cdi_devices.iter().any(|device| !device.optional) {
        return Err(refused("a device"));
    }
    let network = match NetMode::try_from(op.network) {
        Ok(NetMode::Unset) => None,
        Ok(NetMode::Host) => Some(RunNetwork::Host),
        Ok(NetMode::None) => Some(RunNetwork::None),
        Err(_) => {
            return Err(Failure::invalid(format!(
                "a command has the unknown network mode {}",
                op.network
            )));
        }
    };
    let insecure = match SecurityMode::try_from(op.security) {
        Ok(SecurityMode::Sandbox) => false,
        Ok(SecurityMode::Insecure) => true,
        Err(_) => {
            return Err(Failure::invalid(format!(
                "a command has the unknown security mode {}",
                op.security
            )));
        }
    };
    let mut mounts = Vec::new();
    for mounted in &op.mounts {
        mounts.push(mount(mounted, place)?);
    }
    if mounts.iter().filter(|mount| mount.target == "/").count() != 1 {
        return Err(Failure::invalid(format!(
            "the command {:?} needs one mount as its root",
            meta.args
        )));
    }
    for secret in &op.secretenv {
        mounts.push(ExecMount {
            mount: Mount {
                id: Some(secret.id.clone()),
                env: Some(secret.name.clone()),
                required: !secret.optional,
                ..Mount::plain(MountKind::Secret)
            },
            target: String::new(),
            input: None,
            output: None,
        });
    }
    let mut env = meta.env.clone();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    Ok(Exec {
        proxy: proxy(&meta),
        hosts: meta
            .extra_hosts
            .iter()
            .map(|host| format!("{}:{}", host.host, host.ip))
            .collect(),
        args: meta.args,
        env,
        cwd: format!("/{}", clean(&meta.cwd)),
        user: meta.user,
        hostname: meta.hostname,
        network,
        insecure,
        good_codes: meta.valid_exit_codes,
        mounts,
    })
}

/// Proxies under both spellings that programs look for.
fn proxy(meta: &Meta) -> Vec<String> {
    let Some(proxy) = &meta.proxy_env else {
        return Vec::new();
    };
    let all = [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ];
    let given = all.iter().filter(|(_, value)| !value.is_empty());
    given
        .flat_map(|(name, value)| {
            [
                format!("{name}={value}"),
                format!("{}={value}", name.to_ascii_lowercase()),
            ]
        })
        .collect()
}

fn mount(mounted: &Mounted, place: &Place<'_>) -> Result<ExecMount, Failure> {
    let target = format!("/{}", clean(&mounted.dest));
    let kind = MountType::try_from(mounted.mount_type).map_err(|_| {
        Failure::invalid(format!(
            "the mount {target} has the unknown type {}",
            mounted.mount_type
        ))
    })?;
    // Clients leave the number at 0 for mounts that hold no files.
    let output = match mounted.output {
        _ if kind != MountType::Bind => None,
        -1 => None,
        number => Some(
            usize::try_from(number)
                .map_err(|_| Failure::invalid(format!("the mount {target} is to be the result {number}")))?,
        ),
    };
    let selector = clean(&mounted.selector);
    let source = (!selector.is_empty()).then(|| selector.clone());
    if output.is_some() && source.is_some() {
        return Err(refused(&format!(
            "a result from a part ({selector}) of what is mounted at {target}"
        )));
    }
    let mount = match kind {
        MountType::Bind => Mount {
            source,
            read_only: Some(mounted.readonly),
            ..Mount::plain(MountKind::Bind)
        },
        MountType::Tmpfs => {
            let size = mounted.tmpfs_opt.as_ref().map_or(0, |options| options.size);
            Mount {
                size: u64::try_from(size).ok().filter(|size| *size > 0),
                ..Mount::plain(MountKind::Tmpfs)
            }
        }
        MountType::Cache => {
            let options = mounted.cache_opt.clone().unwrap_or_default();
            let sharing = match CacheSharingOpt::try_from(options.sharing) {
                Ok(CacheSharingOpt::Shared) => Sharing::Shared,
                Ok(CacheSharingOpt::Private) => Sharing::Private,
                Ok(CacheSharingOpt::Locked) => Sharing::Locked,
                Err(_) => {
                    let text = format!(
                        "the mount {target} has the unknown sharing mode {}",
                        options.sharing
                    );
                    return Err(Failure::invalid(text));
                }
            };
            Mount {
                source,
                id: Some(options.id).filter(|id| !id.is_empty()),
                read_only: Some(mounted.readonly),
                sharing,
                ..Mount::plain(MountKind::Cache)
            }
        }
        MountType::Secret => {
            let options = mounted.secret_opt.clone().unwrap_or_default();
            Mount {
                id: Some(options.id),
                target: Some(target.clone()),
                mode: Some(options.mode & 0o7777),
                uid: Some(options.uid),
                gid: Some(options.gid),
                required: !options.optional,
                ..Mount::plain(MountKind::Secret)
            }
        }
        MountType::Ssh => {
            let options = mounted.ssh_opt.clone().unwrap_or_default();
            Mount {
                id: Some(options.id).filter(|id| !id.is_empty()),
                target: Some(target.clone()),
                mode: Some(options.mode & 0o7777),
                uid: Some(options.uid),
                gid: Some(options.gid),
                required: !options.optional,
                ..Mount::plain(MountKind::Ssh)
            }
        }
    };
    Ok(ExecMount {
        mount,
        target,
        input: place.input(mounted.input)?,
        output,
    })
}
