//! `top`: the host's `ps` over the processes of a container's cgroup, as Docker does it.
//!
//! The arguments come from a client and are passed to `ps` as words, never through a shell. The columns are
//! whatever `ps` prints; the rows are those whose PID belongs to the container.

use std::collections::HashSet;
use std::process::Command;

use api_types::ContainerTopResponse;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// Lists a container's processes.
    pub async fn container_top(&self, name: &str, ps_args: &str) -> Result<ContainerTopResponse> {
        let container = self.container(name)?;
        if !container.state.status.is_alive() {
            return Err(container.not_running());
        }
        let args = if ps_args.trim().is_empty() { "-ef" } else { ps_args }.to_owned();
        let cgroup = self.inner.cgroup_of(&container)?;
        let top = blocking(move || {
            let pids: HashSet<i32> = cgroup.pids()?.into_iter().collect();
            let output = Command::new("ps")
                .args(args.split_whitespace())
                .output()
                .map_err(|error| {
                    Error::internal(format!(
                        "cannot run ps on the host: {error}: install the package procps"
                    ))
                })?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(Error::internal(format!("ps: {}", text.trim())));
            }
            parse(&String::from_utf8_lossy(&output.stdout), &pids)
        })
        .await?;
        self.inner
            .events
            .publish("container", "top", container.id.as_str(), container.attributes());
        Ok(top)
    }
}

fn parse(output: &str, pids: &HashSet<i32>) -> Result<ContainerTopResponse> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let pid = titles
        .iter()
        .position(|t| t == "PID")
        .ok_or_else(|| Error::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let Some(number) = fields.get(pid) else { continue };
        if !number.parse::<i32>().is_ok_and(|n| pids.contains(&n)) {
            continue;
        }
        // The last column, the command, may hold spaces.
        let last = titles.len() - 1;
        let mut row: Vec<String> = fields.iter().take(last).map(|f| (*f).to_owned()).collect();
        row.push(fields.get(last..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(ContainerTopResponse { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_only() {
        let text = "UID PID CMD\nroot 1 init\nroot 7 sh -c a b\n";
        let top = parse(text, &HashSet::from([7])).unwrap();
        assert_eq!(top.processes, [["root", "7", "sh -c a b"]]);
        assert!(parse("UID CMD\n", &HashSet::new()).is_err());
    }
}
