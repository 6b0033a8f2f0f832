//! A container's life beyond its first run: restart policies, what may be waited for, a machine that went down, a new
//! program in place of the daemon's, state that an earlier release wrote.

mod alone;
mod execs;
mod monitors;
mod policies;
mod reboot;
mod releases;
mod waiting;

const STATE: &str = "{{.State.Status}} {{.State.ExitCode}}";
