//! The command line's grammar.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(
    name = "berth runtime",
    about = "Run containers from OCI bundles",
    version,
    disable_help_subcommand = true
)]
pub(super) struct Arguments {
    /// Directory for the state of containers
    #[arg(long, default_value = "/run/berth/runtime")]
    pub root: PathBuf,
    /// File to append error messages to
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, default_value = "text")]
    pub log_format: LogFormat,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub debug: bool,
    /// Not supported
    #[arg(long, hide = true)]
    pub systemd_cgroup: bool,
    /// Accepted for compatibility; the mode follows from the caller
    #[arg(long, hide = true)]
    pub rootless: Option<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub criu: Option<String>,
    #[command(subcommand)]
    pub command: Command,
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
        /// Accepted for compatibility
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        options: Vec<String>,
    },
    /// Write a config.json to begin with
    Spec {
        #[arg(short, long)]
        bundle: Option<PathBuf>,
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
    /// Not supported
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Not supported but for 0
    #[arg(long, default_value_t = 0, hide = true)]
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
    /// Not supported but for 0
    #[arg(long, default_value_t = 0, hide = true)]
    pub preserve_fds: u32,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
