//! Packets: TCP and UDP between two containers and from the host to a published port, and requests of a web client, each
//! against a bridge with two veth pairs that nobody manages. A published port is translated, and the bare bridge is not: what
//! any translation costs is shown by a second column, of the same bridge with two rules made by hand.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::net::{SECONDS, Side, inside, own_program};
use crate::interrupt::Cleaning;
use crate::process::{capture, output, run as run_command};

/// The same pair of programs differs by a fifth from one moment to the next, so the middle of a few says little.
const ROUNDS: usize = 10;

/// Ends with the measurement it serves.
struct Server(Child);

impl Server {
    fn start(mut command: Command) -> Result<Server> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(Server(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gigabits per second from one program to another, as the receiver counted them.
fn iperf(server: Command, mut client: Command, address: &str, port: &str, datagrams: bool) -> Result<f64> {
    let mut server = server;
    server.args(["-s", "-1", "-p", "5201"]);
    let _server = Server::start(server)?;
    client.args(["-c", address, "-p", port, "-t", SECONDS, "-J"]);
    if datagrams {
        client.args(["-u", "-b", "0", "-l", "1400"]);
    }
    let report: serde_json::Value = serde_json::from_str(&capture(&mut client)?)?;
    let end = &report["end"];
    let bits = match datagrams {
        // What was sent, without what never came.
        true => end["sum"]["bits_per_second"]
            .as_f64()
            .zip(end["sum"]["lost_percent"].as_f64())
            .map(|(sent, lost)| sent * (1.0 - lost / 100.0)),
        false => end["sum_received"]["bits_per_second"].as_f64(),
    };
    Ok(bits.context("iperf3 counted nothing")? / 1e9)
}

/// Two namespaces on a bridge that the host has an address on, made by hand: what the kernel gives where nobody is in the
/// way. The ports [`Bare::STREAM`] and [`Bare::WEB`] of 127.0.0.1 lead to the first, by one rule each and one for the answers.
struct Bare;

impl Bare {
    const NAMES: [&'static str; 2] = ["berth-bare-a", "berth-bare-b"];

    fn make() -> Result<Bare> {
        let bare = Bare;
        let ip = |line: &str| run_command(Command::new("ip").args(line.split(' ')));
        ip("link add berth-bare type bridge")?;
        ip("link set berth-bare up")?;
        ip("address add 10.199.199.1/24 dev berth-bare")?;
        for (n, name) in Bare::NAMES.iter().enumerate() {
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "link add berth-bare{n} type veth peer name eth0 netns {name}"
            ))?;
            ip(&format!("link set berth-bare{n} master berth-bare up"))?;
            ip(&format!("-n {name} address add 10.199.199.{}/24 dev eth0", n + 2))?;
            ip(&format!("-n {name} link set eth0 up"))?;
        }
        std::fs::write("/proc/sys/net/ipv4/conf/berth-bare/route_localnet", "1")?;
        let rules = format!(
            "table ip berth-bare {{ \
             chain output {{ type nat hook output priority -100; \
             ip daddr 127.0.0.1 tcp dport {} dnat to {server}:5201; \
             ip daddr 127.0.0.1 tcp dport {} dnat to {server}:80; }}; \
             chain postrouting {{ type nat hook postrouting priority 100; \
             ip saddr 127.0.0.0/8 oifname \"berth-bare\" masquerade; }}; }}",
            Bare::STREAM,
            Bare::WEB,
            server = Bare::SERVER,
        );
        run_command(Command::new("nft").arg(rules))?;
        Ok(bare)
    }

    const SERVER: &'static str = "10.199.199.2";
    const STREAM: &'static str = "25201";
    const WEB: &'static str = "28080";

    /// What the other end of a measurement is: a neighbour, or the host.
    fn client(published: bool, program: &str) -> Command {
        match published {
            true => Command::new(program),
            false => Bare::program(1, program),
        }
    }

    fn program(at: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let name = Bare::NAMES.get(at).copied().unwrap_or_default();
        command.args([&format!("--net=/run/netns/{name}"), program]);
        command
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _cleaning = Cleaning::begin();
        for name in Bare::NAMES {
            let _ = output(Command::new("ip").args(["netns", "del", name]));
        }
        let _ = output(Command::new("nft").args(["delete", "table", "ip", "berth-bare"]));
        let _ = output(Command::new("ip").args(["link", "del", "berth-bare"]));
    }
}

/// TCP and UDP between two containers and from the host to a published port, in pairs with the bare bridge.
pub(super) fn throughput(sides: &[Side<'_>]) -> Result<()> {
    println!("| what | bare | bare, translated | docker | berth | berth of bare | of translated | goal |");
    println!("|---|---|---|---|---|---|---|---|");
    let bare = Bare::make()?;
    let mut processes = Vec::new();
    for side in sides {
        let server = side.start("sink", &["-p", "15201:5201"], &["sleep", "100000"])?;
        let client = side.start("source", &[], &["sleep", "100000"])?;
        processes.push((side, server, client, side.address("sink")?));
    }
    for (what, datagrams, published) in [
        ("TCP, container to container", false, false),
        ("UDP, container to container", true, false),
        ("TCP, host to published port", false, true),
    ] {
        let measure_bare = || {
            let programs = (Bare::program(0, "iperf3"), Bare::client(published, "iperf3"));
            iperf(programs.0, programs.1, Bare::SERVER, "5201", datagrams)
        };
        let measure_translated = || {
            let programs = (Bare::program(0, "iperf3"), Command::new("iperf3"));
            iperf(programs.0, programs.1, "127.0.0.1", Bare::STREAM, datagrams)
        };
        let (mut bares, mut by_hand) = (Vec::new(), Vec::new());
        let mut figures = vec![Vec::new(); processes.len()];
        for _ in 0..ROUNDS {
            bares.push(measure_bare()?);
            if published {
                by_hand.push(measure_translated()?);
            }
            for (figure, (side, server, client, address)) in figures.iter_mut().zip(&processes) {
                let serve = inside(*server, "iperf3");
                figure.push(match published {
                    false => iperf(serve, inside(*client, "iperf3"), address, "5201", datagrams)?,
                    true => iperf(serve, side.on_host("iperf3"), "127.0.0.1", "15201", datagrams)?,
                });
            }
        }
        let (bare, docker, berth) = (
            middle(&bares),
            middle(figures.first().map_or(&[], Vec::as_slice)),
            middle(figures.last().map_or(&[], Vec::as_slice)),
        );
        let (translated, of_translated) = match published {
            true => {
                let translated = middle(&by_hand);
                (
                    format!("{translated:.1} Gbit/s"),
                    format!("{:.2}", berth / translated),
                )
            }
            false => (String::new(), String::new()),
        };
        println!(
            "| {what} | {bare:.1} Gbit/s | {translated} | {docker:.1} Gbit/s | {berth:.1} Gbit/s | {:.2} | {of_translated} | 0.95 |",
            berth / bare
        );
    }
    drop(bare);
    sides.iter().try_for_each(|side| side.remove(&["sink", "source"]))
}

/// Requests per second to a small web server ([`answer`]), each on a connection of its own: from a container to a container
/// and from the host to a published port. It runs in the namespaces alone, not in the containers: it is about networks, not
/// about who gets how much of the processors.
pub(super) fn requests(sides: &[Side<'_>]) -> Result<()> {
    println!(
        "| requests per second | bare | bare, translated | docker | berth | berth of bare | of translated | goal |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let bare = Bare::make()?;
    let own = own_program()?;
    let serve = |mut command: Command| {
        command.arg("http-serve");
        Server::start(command)
    };
    let mut servers = vec![serve(Bare::program(0, &own))?];
    let mut places = Vec::new();
    for side in sides {
        let server = side.start("web", &["-p", "18080:80"], &["sleep", "100000"])?;
        servers.push(serve(inside(server, &own))?);
        let client = side.start("source", &[], &["sleep", "100000"])?;
        places.push((side, client, side.address("web")?));
    }
    for (what, published) in [
        ("container to container", false),
        ("host to published port", true),
    ] {
        let (mut bares, mut by_hand) = (Vec::new(), Vec::new());
        let mut figures = vec![Vec::new(); places.len()];
        for _ in 0..ROUNDS {
            bares.push(wrk(
                Bare::client(published, "wrk"),
                &format!("{}:80", Bare::SERVER),
            )?);
            if published {
                by_hand.push(wrk(Command::new("wrk"), &format!("127.0.0.1:{}", Bare::WEB))?);
            }
            for (figure, (side, client, address)) in figures.iter_mut().zip(&places) {
                figure.push(match published {
                    false => wrk(inside(*client, "wrk"), &format!("{address}:80"))?,
                    true => wrk(side.on_host("wrk"), "127.0.0.1:18080")?,
                });
            }
        }
        let bare = middle(&bares);
        let docker = figures.first().map_or(0.0, |figures| middle(figures));
        let berth = figures.last().map_or(0.0, |figures| middle(figures));
        let (translated, of_translated) = match published {
            true => {
                let translated = middle(&by_hand);
                (format!("{translated:.0}"), format!("{:.2}", berth / translated))
            }
            false => (String::new(), String::new()),
        };
        println!(
            "| {what} | {bare:.0} | {translated} | {docker:.0} | {berth:.0} | {:.2} | {of_translated} | 0.95 |",
            berth / bare
        );
    }
    drop(servers);
    drop(bare);
    sides.iter().try_for_each(|side| side.remove(&["web", "source"]))
}

/// `xtask http-serve`, for use inside a namespace: answers each connection to port 80 once and closes it.
pub fn answer() -> Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let listener = TcpListener::bind("0.0.0.0:80")?;
    let serve = || {
        let mut request = [0; 1024];
        for stream in listener.incoming() {
            // One that failed shows as a request that is missing.
            let _ = stream.and_then(|mut stream| {
                // Of a request of this size it is all that was sent.
                let _some = stream.read(&mut request)?;
                stream.write_all(ANSWER)
            });
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(serve);
        }
    });
    Ok(())
}

fn wrk(mut client: Command, address: &str) -> Result<f64> {
    let seconds = format!("{SECONDS}s");
    client.args([
        "-t",
        "2",
        "-c",
        "16",
        "-d",
        &seconds,
        &format!("http://{address}/"),
    ]);
    let report = capture(&mut client)?;
    ensure!(
        !report.contains("Non-2xx"),
        "the web server did not answer well:\n{report}"
    );
    let line = report.lines().find(|line| line.starts_with("Requests/sec:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    figure.context("wrk counted nothing")
}

fn middle(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
