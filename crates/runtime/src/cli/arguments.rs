//! The command line's grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(
    name = "berth runtime",
    about = "Run containers from OCI bundles",
    version,
    // Engines and the wrappers around them both name a root; the later one counts.
    args_override_self = true,
    disable_help_subcommand = true
)]
pub(super) struct Arguments {
    /// Directory for the state of containers
    #[arg(long, default_value = "/run/berth/runtime")]
    pub root: PathBuf,
    /// File to append errors and warnings to (warnings go to standard error without it)
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, default_value = "text")]
    pub log_format: LogFormat,
    /// More in the log than errors and warnings
    #[arg(long)]
    pub debug: bool,
    /// Have systemd make the cgroup, as a scope (create, run); linux.cgroupsPath has the form slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Do without a cgroup where none may be made and nothing asks for one (auto: in a user namespace)
    #[arg(long, default_value = "auto")]
    pub rootless: Rootless,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub criu: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    Auto,
    True,
    False,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a container; its program waits for start
    Create(CreateOptions),
    /// Let a created container run its program
    Start { id: String },
    /// Create, start and, unless detached, wait for a container
    Run(CreateOptions),
    /// Run a further process in a container
    Exec(ExecOptions),
    /// Send a signal (default TERM) to a container's first process
    Kill {
        /// To all processes
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove what is left of a container
    Delete {
        /// End it first if it is running; no complaint if there is none
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Change the limits of a container
    Update(Box<UpdateOptions>),
    /// Tell what a container uses, and of out-of-memory kills, as lines of JSON
    Events {
        /// Time between two lines: a number with ms, s or m
        #[arg(long, default_value = "5s", value_parser = interval)]
        interval: Duration,
        /// One line of what is used now, and no more
        #[arg(long)]
        stats: bool,
        id: String,
    },
    /// Print a container's state
    State { id: String },
    /// List containers
    List {
        #[arg(short, long, default_value = "table")]
        format: Format,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
    },
    /// List a container's processes
    Ps {
        #[arg(short, long, default_value = "table")]
        format: Format,
        id: String,
        /// Options for ps(1) (default -ef)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Write a config.json to begin with
    Spec {
        #[arg(short, long)]
        bundle: Option<PathBuf>,
        /// One with a user namespace that has the caller's id alone, the host's network, and no limits
        #[arg(long)]
        rootless: bool,
    },
    /// Print what this runtime can do
    Features,
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateOptions {
    /// Directory with config.json
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that receives the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File that receives the process's number
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Socket that receives a handle (pidfd) of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Change the root directory without pivot_root(2), where the host's root is a ramdisk. Weaker: a process that
    /// may chroot(2) can leave such a root
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave the container's processes the keys of the caller's session, instead of a fresh keyring each
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Accepted for compatibility: this runtime adopts nobody's processes
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// How many of the caller's descriptors from 3 on the process gets
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do not wait for the container (run)
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container when it has ended (run)
    #[arg(long)]
    pub keep: bool,
    pub id: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExecOptions {
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<String>,
    /// Variable NAME=VALUE
    #[arg(short, long)]
    pub env: Vec<String>,
    /// UID[:GID]
    #[arg(short, long)]
    pub user: Option<String>,
    /// Additional group
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// Additional capability
    #[arg(short = 'c', long)]
    pub cap: Vec<String>,
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// File with the process as JSON, instead of the command
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Socket that receives a handle (pidfd) of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// How many of the caller's descriptors from 3 on the process gets
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Group below the container's to run in; with version 1, CONTROLLER[,CONTROLLER]:PATH any number of times
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// Also in a container that is paused, where the process waits until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Sizes are bytes, or have a unit (512m); what is not named stays as it is.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateOptions {
    /// File with limits as in the configuration's linux.resources (- for standard input), instead of the options
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    #[arg(long)]
    pub cpu_share: Option<u64>,
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_negative_numbers = true, value_parser = size)]
    pub memory: Option<i64>,
    #[arg(long, allow_negative_numbers = true, value_parser = size)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, allow_negative_numbers = true, value_parser = size)]
    pub memory_swap: Option<i64>,
    /// Accepted for compatibility: Linux 5.15 and newer have no limits of kernel memory
    #[arg(long, hide = true, allow_negative_numbers = true, value_parser = size)]
    pub kernel_memory: Option<i64>,
    /// Accepted for compatibility, as well
    #[arg(long, hide = true, allow_negative_numbers = true, value_parser = size)]
    pub kernel_memory_tcp: Option<i64>,
    #[arg(long, allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Line of the L3 cache, for a container with linux.intelRdt
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// Line of the memory bandwidth, for a container with linux.intelRdt
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
    pub id: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a number with ms, s or m"))?;
    let duration = match text.get(digits.len()..) {
        Some("ms") => Duration::from_millis(number),
        Some("s" | "") => Duration::from_secs(number),
        Some("m") => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(format!("{text:?} is not a number with ms, s or m")),
    };
    if duration.is_zero() {
        return Err("the interval must be longer than nothing".to_owned());
    }
    Ok(duration)
}

/// Bytes, as a number or with a unit of 1024 of the one before; -1 is no limit.
fn size(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a size: a number of bytes, one with a unit (512m), or -1");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = lower.strip_suffix(unit).unwrap_or(&lower);
    let power = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1i64 << (10 * power);
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    if bytes < i64::MAX as f64 {
        Ok(bytes as i64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 64 << 20),
            ("512m", 512 << 20),
            ("2K", 2 << 10),
            ("1GiB", 1 << 30),
            ("1.5kb", 1536),
            ("-1", -1),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-2",
            "5x",
            "1.2.3",
            "9999999p",
            "99999999999999999999",
            "NaN",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "5h", "-1s", "0s", "1.5s"] {
            assert!(interval(bad).is_err(), "{bad:?}");
        }
    }
}
