//! `create` and `run`.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use cgroup::{Driver, Group, Place};
use spec::runtime::{DeviceCgroup, Resources, Spec};

use super::arguments::CreateOptions;
use super::console;
use super::document;
use super::error::CliError;
use super::inherited::{self, Inherited};
use super::lifecycle;
use super::rdt::{self, Class};
use super::state::{self, Containers, Record};
use crate::hooks::HookPlan;
use crate::identity::Identity;
use crate::launch::{Launch, Planned, RootFs, Running, Stdio};
use crate::seccomp::{self, Prepared};
use crate::validate::validate;

/// How the control group is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub systemd: bool,
    /// A container may be without one.
    pub optional: bool,
}

pub(super) fn create(
    containers: &Containers,
    options: &CreateOptions,
    groups: Groups,
) -> Result<i32, CliError> {
    if options.detach {
        return Err(CliError::Usage(
            "create has no --detach; a created container is detached".to_owned(),
        ));
    }
    make(
        containers,
        options,
        inherited::check(options.preserve_fds)?,
        false,
        groups,
    )?;
    Ok(0)
}

pub(super) fn run(containers: &Containers, options: &CreateOptions, groups: Groups) -> Result<i32, CliError> {
    // Looked at before anything else is opened: afterwards the numbers could be our own.
    let preserved = inherited::check(options.preserve_fds)?;
    let signals = if options.detach {
        None
    } else {
        Some(console::take_signals()?)
    };
    let running = make(containers, options, preserved, !options.detach, groups)?;
    let started = lifecycle::start(containers, &options.id);
    let Some(signals) = signals.filter(|_| started.is_ok()) else {
        if started.is_err() {
            lifecycle::delete(containers, &options.id, true)?;
        }
        return started;
    };
    // What waits as long as the container runs should not hold what making it took.
    sys::memory::release_unused();
    sys::memory::release_code();
    let exit = console::attend(running.pidfd.as_fd(), running.terminal.as_ref(), &signals)?;
    if !options.keep {
        lifecycle::delete(containers, &options.id, true)?;
    }
    Ok(exit.code())
}

/// Everything up to the start. On failure nothing is left.
fn make(
    containers: &Containers,
    options: &CreateOptions,
    preserved: Inherited,
    foreground: bool,
    groups: Groups,
) -> Result<Running, CliError> {
    state::check_id(&options.id)?;
    let bundle = state::absolute(&options.bundle)?;
    let mut spec: Spec = document::read(&bundle.join("config.json"))?;
    // What is wrong is told before anything is made.
    validate(&spec, &bundle)?;
    let linux = spec.linux.as_ref();
    let resctrl = linux.and_then(|linux| linux.intel_rdt.as_ref()).map(|asked| {
        rdt::check(asked)?;
        rdt::root()
    });
    let resctrl = resctrl.transpose()?;
    let filter = linux
        .and_then(|linux| linux.seccomp.as_ref())
        .map(|document| seccomp::prepare(document, None))
        .transpose()?;
    // Reading takes as much code as all that follows, and other code.
    sys::memory::release_code();
    if let Some(process) = &mut spec.process {
        if process.terminal && options.console_socket.is_none() && !foreground {
            return Err(CliError::Usage(
                "a detached container with a terminal needs --console-socket".to_owned(),
            ));
        }
        inherited::tell(preserved, &mut process.env);
    }
    let path = spec
        .linux
        .as_ref()
        .and_then(|linux| linux.cgroups_path.as_deref());
    let making = Making {
        containers,
        options,
        bundle: &bundle,
        spec: &spec,
        filter: filter.as_ref(),
        resctrl: resctrl.as_deref(),
        place: state::place(path, &options.id, groups.systemd)?,
        optional: groups.optional,
        preserve_fds: preserved.count(),
    };
    containers.reserve(&options.id)?;
    let mut hooked = false;
    let result = making.launch(&mut hooked);
    if result.is_err() {
        if let Err(left) = containers.remove(&options.id) {
            let (id, told) = (&options.id, left.sentence());
            tracing::warn!("container {id} was not made, and {told}: `delete --force` removes what is left");
        }
        if hooked {
            // What the first hooks have set up, the last ones take back.
            HookPlan::new(&spec, Identity::new(&spec, &options.id, &bundle)).run_poststop();
        }
    }
    result
}

/// What a container is made from.
struct Making<'a> {
    containers: &'a Containers,
    options: &'a CreateOptions,
    bundle: &'a Path,
    spec: &'a Spec,
    filter: Option<&'a Prepared>,
    /// Where classes of cache and memory bandwidth are, for a container that wants one.
    resctrl: Option<&'a Path>,
    place: Place,
    /// It may be without a group.
    optional: bool,
    preserve_fds: u32,
}

impl Making<'_> {
    /// `hooked` says whether hooks may have run.
    fn launch(&self, hooked: &mut bool) -> Result<Running, CliError> {
        let Making {
            containers,
            options,
            bundle,
            spec,
            ref place,
            ..
        } = *self;
        let root = bundle.join(spec.root.as_ref().map_or(Path::new(""), |root| &root.path));
        let group = group(spec, &options.id, place, self.optional)?;
        let asked = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
        let class = match (self.resctrl, asked) {
            (Some(resctrl), Some(asked)) => Some(Class::make(resctrl, &options.id, asked)?),
            _ => None,
        };
        let socket = containers.listen(&options.id)?;
        let stdio = match spec.process.as_ref().is_some_and(|process| process.terminal) {
            true => Stdio::Terminal,
            false => Stdio::Inherit,
        };
        let mut launch = Launch::new(&options.id, bundle, spec, RootFs::Path(&root), stdio);
        launch.cgroup = group.as_ref().map(Group::cgroup);
        launch.start_socket = Some(socket.as_fd());
        launch.preserve_fds = self.preserve_fds;
        launch.no_pivot = options.no_pivot;
        launch.callers_keyring = options.no_new_keyring;
        launch.filter = self.filter;
        launch.classed = class.is_some();
        let planned = Planned::new(launch)?;
        *hooked = true;
        // Making the plan is done, and waiting for the container takes time anyway.
        let mut created = planned.create(sys::memory::release_code)?;
        let pid = created.pid();
        let classed = class.as_ref().map_or_else(Vec::new, Class::directories);
        rdt::enter(&classed, pid.unsigned_abs())?;
        let (_, start_time) = state::stat(pid).ok_or_else(|| CliError::NotRunning(options.id.clone()))?;
        if let Some(path) = &options.console_socket
            && let Some(master) = created.terminal()
        {
            console::hand_over(path, &master)?;
        }
        if let Some(path) = &options.pidfd_socket {
            console::hand_over_process(path, created.pidfd())?;
        }
        if let Some(path) = &options.pid_file {
            write_pid(path, pid)?;
        }
        let record = Record {
            id: options.id.clone(),
            pid,
            start_time,
            bundle: bundle.to_path_buf(),
            rootfs: root.clone(),
            created: jiff::Timestamp::now().to_string(),
            cgroup_parent: place.parent().to_owned(),
            cgroup_name: group
                .as_ref()
                .map_or_else(String::new, |_| place.name().to_owned()),
            systemd: place.driver() == Driver::Systemd,
            classes: class.as_ref().map_or_else(Vec::new, Class::goes),
            classed,
            callers_keyring: options.no_new_keyring,
            spec: spec.clone(),
        };
        containers.save(&record)?;
        let running = created.leave()?;
        if let Some(group) = group {
            group.keep();
        }
        if let Some(class) = class {
            class.keep();
        }
        Ok(running)
    }
}

/// The group with its limits; none where it is optional, may not be made, and nothing in the configuration needs it.
fn group(spec: &Spec, id: &str, place: &Place, optional: bool) -> Result<Option<Group>, CliError> {
    let linux = spec.linux.as_ref();
    let asked = linux
        .and_then(|linux| linux.resources.clone())
        .unwrap_or_default();
    let needed = linux.is_some_and(|linux| linux.cgroups_path.is_some()) || {
        // Who may not make a group may not open devices by it either.
        let devices = Vec::new();
        !Resources {
            devices,
            ..asked.clone()
        }
        .is_empty()
    };
    let resources = with_device_rules(asked);
    let made = place.make(&format!("Container {id}"), &resources);
    let limited = made.and_then(|group| group.cgroup().apply(&resources).map(|()| group));
    match limited {
        Err(error) if optional && !needed && error.is_permission() => Ok(None),
        limited => Ok(Some(limited?)),
    }
}

/// Access to devices as the field's runtimes grant it: nothing, then what the configuration says, then what every
/// container needs.
pub(super) fn with_device_rules(mut resources: Resources) -> Resources {
    // Type, major and minor number (none is any), access. Any node may be made: using it is another matter.
    const ALWAYS: [(&str, Option<i64>, Option<i64>, &str); 10] = [
        ("c", None, None, "m"),
        ("b", None, None, "m"),
        ("c", Some(1), Some(3), "rwm"), // null
        ("c", Some(1), Some(5), "rwm"), // zero
        ("c", Some(1), Some(7), "rwm"), // full
        ("c", Some(1), Some(8), "rwm"), // random
        ("c", Some(1), Some(9), "rwm"), // urandom
        ("c", Some(5), Some(0), "rwm"), // tty
        ("c", Some(5), Some(2), "rwm"), // ptmx
        ("c", Some(136), None, "rwm"),  // pts
    ];
    let mut rules = vec![DeviceCgroup {
        allow: false,
        access: "rwm".to_owned(),
        ..DeviceCgroup::default()
    }];
    rules.append(&mut resources.devices);
    rules.extend(ALWAYS.map(|(kind, major, minor, access)| DeviceCgroup {
        allow: true,
        r#type: Some(kind.to_owned()),
        major,
        minor,
        access: access.to_owned(),
    }));
    resources.devices = rules;
    resources
}

pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), CliError> {
    // Whoever watches for the file must find it whole.
    let temporary = path.with_extension("new");
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| CliError::io(&format!("pid file {}", path.display()), error))
}
