//! Execs.

use api_types::{ExecInspect, ExecProcessConfig};
use engine::Exec;

/// `GET /exec/{id}/json`; `user` is the container's, for an exec that names none.
pub fn inspect(exec: &Exec, user: &str) -> ExecInspect {
    let config = &exec.config;
    let mut words = config.cmd.iter().cloned();
    ExecInspect {
        id: exec.id.clone(),
        running: exec.running,
        exit_code: exec.exit_code,
        process_config: ExecProcessConfig {
            tty: config.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(config.privileged),
            user: if config.user.is_empty() {
                user.to_owned()
            } else {
                config.user.clone()
            },
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        can_remove: false,
        container_id: exec.container.to_string(),
        detach_keys: String::new(),
        pid: i64::from(exec.pid),
    }
}
