//! Each barrier of `docs/threat-model.md` that can be taken away by a few words, and a test that must notice.

/// One barrier, taken away.
pub struct Mutant {
    /// As the threat model calls the threat.
    pub threat: &'static str,
    /// File, the words that stand there once, and what stands there without the barrier.
    pub edits: &'static [(&'static str, &'static str, &'static str)],
    /// The test program (as `--test` calls it), and the test's whole name in it.
    pub test: (&'static str, &'static str),
}

const CONTAINER: &str = "crates/runtime/src/container.rs";
const CREDENTIALS: &str = "crates/runtime/src/process/credentials.rs";
const ATTACH: &str = "crates/runtime/src/rootfs/attach.rs";
const EXEC: &str = "crates/runtime/src/exec.rs";
const HIDDEN: &str = "crates/runtime/src/rootfs/hidden.rs";
const TARGET: &str = "crates/runtime/src/rootfs/target.rs";
const PROFILE: &str = "crates/runtime/src/seccomp/profile.rs";

pub const ALL: &[Mutant] = &[
    Mutant {
        threat: "CVE-2024-21626",
        edits: &[
            (
                "crates/runtime/src/process.rs",
                "        self.check_cwd()?;\n",
                "",
            ),
            (
                CONTAINER,
                "sys::fd::close_all_except(&keep).during(\"close descriptors\")?;",
                "let _ = &keep;",
            ),
        ],
        test: ("hostile", "no_descriptor_of_the_host_becomes_a_working_directory"),
    },
    Mutant {
        threat: "CVE-2019-5736",
        edits: &[(
            "crates/sys/src/program.rs",
            "    mount_of(program).or_else(|_| copy_of(program))",
            "    Ok(rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)",
        )],
        test: (
            "e2e",
            "safety::binary::the_engines_program_cannot_be_written_through",
        ),
    },
    Mutant {
        threat: "CVE-2021-30465",
        edits: &[(
            TARGET,
            "    let found = match resolve_in_root(root, path, LOOK, Mode::empty()) {\n        Ok(found) => found,\n        \
             Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, kind)?,",
            "    let below = path.strip_prefix(\"/\").unwrap_or(path);\n    \
             let named = format!(\"/proc/self/fd/{}/{}\", std::os::fd::AsRawFd::as_raw_fd(&root), below.display());\n    \
             let by_name = || Ok(rustix::fs::openat(rustix::fs::CWD, &*named, LOOK, Mode::empty())?);\n    \
             let found = match by_name() {\n        Ok(found) => found,\n        \
             Err::<OwnedFd, io::Error>(_) if kind == Kind::Directory => { std::fs::create_dir_all(&named)?; by_name()? }\n        \
             Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, kind)?,",
        )],
        test: (
            "hostile",
            "a_mount_point_that_is_exchanged_for_a_link_stays_inside",
        ),
    },
    Mutant {
        threat: "CVE-2025-31133",
        edits: &[(
            HIDDEN,
            "            let tree = Tree::of(self.null.as_fd(), false)?;",
            "            let null = target::existing(root, Path::new(\"/dev/null\"))?;\n            \
             let tree = Tree::of(null.as_ref().unwrap_or(&self.null).as_fd(), false)?;",
        )],
        test: ("hostile", "a_crafted_null_device_does_not_cover_masked_paths"),
    },
    Mutant {
        threat: "CVE-2025-52565",
        edits: &[(
            TARGET,
            "    let (directory, name) = parent(root, path)?;\n    let found",
            "    if kind == Kind::File { return open_or_make(root, path, kind); }\n    \
             let (directory, name) = parent(root, path)?;\n    let found",
        )],
        test: ("hostile", "a_crafted_console_does_not_cover_procfs"),
    },
    Mutant {
        threat: "CVE-2025-52881",
        edits: &[(
            ATTACH,
            "    let path = destination.strip_prefix(\"/\").unwrap_or(destination);\n    let looked",
            "    if root.as_fd().try_clone_to_owned().is_ok() { return Ok(()); }\n    \
             let path = destination.strip_prefix(\"/\").unwrap_or(destination);\n    let looked",
        )],
        test: ("inside", "links_in_the_image_lead_nowhere_else"),
    },
    Mutant {
        threat: "CVE-2018-15664",
        edits: &[(
            "crates/sys/src/beneath.rs",
            "    open(root, path.as_ref(), flags, mode, ResolveFlags::IN_ROOT)",
            "    let path = path.as_ref().strip_prefix(\"/\").unwrap_or(path.as_ref());\n    \
             open(root, path, flags, mode, ResolveFlags::empty())",
        )],
        test: (
            "e2e",
            "safety::copies::a_path_that_is_exchanged_during_a_copy_stays_inside",
        ),
    },
    Mutant {
        threat: "CVE-2019-14271",
        edits: &[
            (
                "crates/sys/src/beneath.rs",
                "/// Opens `path` as a process would see it whose root directory is `root`.\n",
                "pub fn look_names_up() {\n    \
                 // SAFETY: the name is a string of C; what it gives is not used.\n    \
                 unsafe { libc::dlopen(c\"libnss_compat.so.2\".as_ptr(), libc::RTLD_NOW) };\n}\n\n\
                 /// Opens `path` as a process would see it whose root directory is `root`.\n",
            ),
            (
                "crates/engine/src/container/archive.rs",
                "            let root = inner.root_of(&container).map_err(io::Error::other)?;\n",
                "            sys::beneath::look_names_up();\n            \
                 let root = inner.root_of(&container).map_err(io::Error::other)?;\n",
            ),
        ],
        test: ("e2e", "safety::copies::a_copy_loads_nothing_of_the_containers"),
    },
    Mutant {
        threat: "an exec that is seen before it has left the host's mounts",
        edits: &[
            (
                EXEC,
                "    namespace::join_process(plan.pidfd.as_fd(), plan.kinds)",
                "    let mut kinds = plan.kinds;\n    kinds.remove(Kind::Mount);\n    \
                 namespace::join_process(plan.pidfd.as_fd(), kinds)",
            ),
            (
                EXEC,
                "    // A caller that ended before the signal was set sends none.\n",
                "    let mounts = std::iter::once(Kind::Mount).collect();\n    \
                 namespace::join_process(plan.pidfd.as_fd(), mounts).during(\"join the mounts\")?;\n",
            ),
        ],
        test: (
            "hostile",
            "an_exec_never_shows_the_hosts_files_to_a_container_that_may_trace",
        ),
    },
    Mutant {
        threat: "CVE-2022-29162",
        edits: &[(
            CREDENTIALS,
            "caps::set(sets.effective, sets.permitted, sets.inheritable)",
            "caps::set(sets.effective, sets.permitted, sets.permitted)",
        )],
        test: ("hostile", "groups_are_whole_and_nothing_is_inheritable"),
    },
    Mutant {
        threat: "CVE-2022-36109",
        edits: &[(
            "crates/engine/src/container/user.rs",
            "    identity.groups.insert(0, identity.gid);\n",
            "",
        )],
        test: (
            "e2e",
            "safety::rights::groups_are_the_images_and_hold_the_primary_one",
        ),
    },
    Mutant {
        threat: "more capabilities than asked",
        edits: &[(
            CREDENTIALS,
            "caps::limit_bounding(sets.bounding).during",
            "caps::limit_bounding(caps::bounding()).during",
        )],
        test: ("inside", "rights_are_the_configured_ones"),
    },
    Mutant {
        threat: "a joined user namespace gives all rights in it",
        edits: &[
            (
                CREDENTIALS,
                "let Some(sets) = &self.sets else { return Ok(()) };",
                "let Some(sets) = self.sets.as_ref().filter(|_| false) else { return Ok(()) };",
            ),
            (
                CREDENTIALS,
                "caps::limit_bounding(sets.bounding).during",
                "caps::limit_bounding(caps::bounding()).during",
            ),
        ],
        test: (
            "hostile",
            "a_joined_user_namespace_gives_no_more_than_was_asked_for",
        ),
    },
    Mutant {
        threat: "keys of other containers",
        edits: &[(
            CONTAINER,
            "during(\"close descriptors\")?;\n    process.new_keyring()?;\n",
            "during(\"close descriptors\")?;\n",
        )],
        test: ("hostile", "the_callers_keyring_is_not_shared_by_containers"),
    },
    Mutant {
        threat: "cgroup version 1: `release_agent`",
        edits: &[(
            "crates/engine/src/container/oci.rs",
            "    let access = if host.privileged { \"rw\" } else { \"ro\" };",
            "    let access = if host.privileged { \"ro\" } else { \"rw\" };",
        )],
        test: ("e2e", "safety::kernel::no_release_agent_can_be_set"),
    },
    Mutant {
        threat: "/proc/sys, sysrq, /sys written or mounted again",
        edits: &[(
            HIDDEN,
            "            set: Attributes::READ_ONLY,\n            ..Attributes::default()\n        },\n        true,",
            "            ..Attributes::default()\n        },\n        true,",
        )],
        test: ("e2e", "safety::kernel::settings_of_the_host_cannot_be_written"),
    },
    Mutant {
        threat: "secrets and layout in /proc and /sys",
        edits: &[(
            HIDDEN,
            "    if paths.is_empty() {",
            "    if paths.len() < usize::MAX {",
        )],
        test: ("e2e", "safety::kernel::what_is_masked_is_empty"),
    },
    Mutant {
        threat: "AF_ALG, AF_VSOCK",
        edits: &[(
            PROFILE,
            "compare(0, \"SCMP_CMP_LT\", AF_ALG)",
            "compare(0, \"SCMP_CMP_GE\", 0)",
        )],
        test: (
            "e2e",
            "safety::kernel::sockets_into_the_kernel_and_the_hypervisor_are_refused",
        ),
    },
    Mutant {
        threat: "CVE-2019-19921",
        edits: &[(
            ATTACH,
            "        if !allowed && !procfs {",
            "        if !allowed && !procfs && mount.destination == Path::new(\"/\") {",
        )],
        test: ("inside", "links_in_the_image_lead_nowhere_else"),
    },
    Mutant {
        threat: "CVE-2019-5736",
        edits: &[
            (
                "crates/runtime/src/cli.rs",
                "    if sys::program::runs_sealed() {\n        // Reading",
                "    if sys::program::runs_sealed() || std::process::id() > 1 {\n        // Reading",
            ),
            (
                "crates/runtime/src/cli.rs",
                "    if args.iter().any(seals) && !sys::program::runs_sealed() {",
                "    if args.iter().any(seals) && std::process::id() == 1 {",
            ),
        ],
        test: ("hostile", "the_runtimes_program_cannot_be_written_through"),
    },
    Mutant {
        threat: "System V objects of other containers",
        edits: &[(
            "crates/engine/src/container/oci.rs",
            "        NamespaceType::Ipc => host.ipc_mode == \"host\",",
            "        NamespaceType::Ipc => host.ipc_mode != \"nobody's\",",
        )],
        test: (
            "e2e",
            "safety::neighbours::system_v_objects_stay_with_their_container",
        ),
    },
    Mutant {
        threat: "signals and traces across containers",
        edits: &[(
            "crates/engine/src/container/oci.rs",
            "        NamespaceType::Pid => host.pid_mode == \"host\",",
            "        NamespaceType::Pid => host.pid_mode != \"nobody's\",",
        )],
        test: (
            "e2e",
            "safety::neighbours::processes_of_others_cannot_be_signalled_traced_or_entered",
        ),
    },
];
