//! `update`: changes limits, published ports and the restart policy of containers.

use crate::client::query::segment;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::{limits, modes, ports};
use crate::session::{Session, say};
use api_types::{ContainerUpdateResponse, UpdateConfig};

const FLAGS: &[Flag] = &[
    Flag::uint16(
        "blkio-weight",
        "Relative weight of block I/O, 10 to 1000, or 0 for none",
    ),
    Flag::int("cpu-period", "Period of the CPU quota in microseconds"),
    Flag::int("cpu-quota", "CPU time per period in microseconds"),
    Flag::int("cpu-rt-period", "Period of the real-time quota in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU time per period in microseconds"),
    Flag::int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::cpus("cpus", "Number of CPUs the container may fill"),
    Flag::text("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes("memory-reservation", "Soft limit of memory"),
    Flag::bytes(
        "memory-swap",
        "Limit of memory and swap together, -1 for unlimited swap",
    ),
    Flag::int("pids-limit", "Limit of processes, -1 for none"),
    Flag::list(
        "publish-add",
        "Publish a port of the container, at once when it runs ([[ip:]hostPort:]port[/proto])",
    ),
    Flag::list(
        "publish-rm",
        "Publish a port no longer ([[ip:]hostPort:]port[/proto]; what is left out fits all)",
    ),
    Flag::text("restart", "What to do when the container exits"),
];

pub const COMMAND: Command = Command::new(
    "update",
    "Update configuration of one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[FLAGS]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    if !FLAGS.iter().any(|flag| matches.changed(flag.long)) {
        return Err(Failure::text(
            "you must provide one or more flags when using this command",
        ));
    }
    let int = |flag: &str| matches.int(flag).unwrap_or(0);
    let publish = |flag: &str| {
        let ports = ports::publish(matches.list(flag)).map_err(Failure::text)?;
        Ok::<_, Failure>(ports.bindings)
    };
    let config = UpdateConfig {
        blkio_weight: matches
            .text("blkio-weight")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpu_shares: int("cpu-shares"),
        nano_cpus: matches
            .text("cpus")
            .map_or(Ok(0), limits::nano_cpus)
            .map_err(Failure::text)?,
        cpuset_cpus: matches.text("cpuset-cpus").unwrap_or_default().to_owned(),
        cpuset_mems: matches.text("cpuset-mems").unwrap_or_default().to_owned(),
        memory: matches.bytes("memory").unwrap_or(0),
        memory_reservation: matches.bytes("memory-reservation").unwrap_or(0),
        memory_swap: matches.bytes("memory-swap").unwrap_or(0),
        pids_limit: matches.int("pids-limit"),
        restart_policy: modes::restart(matches.text("restart").unwrap_or_default()).map_err(Failure::text)?,
        publish_add: publish("publish-add")?,
        publish_remove: publish("publish-rm")?,
        ..UpdateConfig::default()
    };
    let mut failures = Failures::new();
    for name in &matches.args {
        let path = format!("/containers/{}/update", segment(name));
        let answer = async {
            session
                .client
                .post_json(&path, &config)
                .await?
                .model::<ContainerUpdateResponse>()
                .await
        };
        match answer.await {
            Ok(answer) => {
                say(name)?;
                answer.warnings.iter().for_each(|warning| eprintln!("{warning}"));
            }
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}
