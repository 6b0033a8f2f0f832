//! A machine of its own for each test: a network namespace that plays the host, in which the networks are opened, and
//! another one that plays a machine on its LAN. Nothing of the real host's network is seen or touched.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use network::{
    CreateNetwork, EndpointRequest, NetworkConfig, Networks, PortChoice, PortRequest, Proto, Sandbox,
    SandboxRequest, Served,
};
use spec::{Id, Instance};
use sys::namespace::{Kind, create_with, in_namespace};

/// Longer than the second after which a first packet that was lost on a busy machine is sent again.
const PATIENCE: Duration = Duration::from_millis(1500);
pub const HOST: &str = "198.51.100.1";
pub const HOST6: &str = "2001:db8:51::1";

/// Runs `test` on a machine of its own; says why when this one cannot give it.
pub fn machine(test: impl FnOnce(&Host) + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    create_with(Kind::Network, || {
        let host = Host::new();
        test(&host);
    })
    .unwrap();
}

pub struct Host {
    pub root: tempfile::TempDir,
    pub lan: OwnedFd,
}

impl Host {
    fn new() -> Host {
        sh(BEGIN);
        let lan = linked("uplink", "uplink");
        sh("ip link set uplink up");
        sh(&format!("ip address add {HOST}/24 dev uplink"));
        sh(&format!("ip address add {HOST6}/64 dev uplink nodad"));
        let host = Host {
            root: tempfile::tempdir().unwrap(),
            lan,
        };
        inside(&host.lan, || {
            sh("ip link set uplink up");
            sh("ip address add 198.51.100.2/24 dev uplink");
            sh("ip address add 2001:db8:51::2/64 dev uplink nodad");
            // A neighbour who would route to containers directly if the host let it.
            sh("ip route add 172.16.0.0/12 via 198.51.100.1");
        });
        host
    }

    pub fn config(&self) -> NetworkConfig {
        NetworkConfig::new(Instance::of_root(self.root.path()), self.run_dir())
    }

    pub fn run_dir(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub fn tag(&self) -> String {
        Instance::of_root(self.root.path()).tag
    }

    /// The instance's rules, as `nft` shows them.
    pub fn table(&self) -> String {
        sh(&format!("nft list table inet {}", self.tag()))
    }

    pub fn open(&self) -> Networks {
        let store = store::Store::open(&self.root.path().join("root")).unwrap();
        Networks::open(store, self.config()).unwrap()
    }
}

/// Runs a command line in the calling thread's namespace.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Nobody else is on these links; asking for a second whether an address is taken would only slow the tests.
const BEGIN: &str = "ip link set lo up && sysctl -qw net.ipv6.conf.default.accept_dad=0";

/// A machine of its own at the other end of a link, which is called `here` where this is asked, and `there` on it.
pub fn linked(here: &str, there: &str) -> OwnedFd {
    let machine = sys::namespace::create(Kind::Network).unwrap();
    let mut holder = inside(&machine, || {
        sh(BEGIN);
        Command::new("sleep").arg("60").spawn().unwrap()
    });
    sh(&format!(
        "ip link add {here} type veth peer name {there} netns {}",
        holder.id()
    ));
    holder.kill().unwrap();
    holder.wait().unwrap();
    machine
}

pub fn inside<T: Send>(namespace: &impl AsFd, f: impl FnOnce() -> T + Send) -> T {
    in_namespace(namespace.as_fd(), Kind::Network, f).unwrap()
}

pub fn request(name: &str, networks: &[&str]) -> SandboxRequest {
    SandboxRequest {
        container: Id::random(),
        name: name.to_owned(),
        hostname: String::new(),
        endpoints: networks
            .iter()
            .map(|n| EndpointRequest {
                network: (*n).to_owned(),
                ..EndpointRequest::default()
            })
            .collect(),
        ports: Vec::new(),
        dns: network::DnsConfig::default(),
        sysctls: BTreeMap::new(),
    }
}

pub fn publish(
    proto: Proto,
    container_port: u16,
    host_ip: Option<&str>,
    host_port: PortChoice,
) -> PortRequest {
    PortRequest {
        container_port,
        proto,
        host_ip: host_ip.map(|a| a.parse().unwrap()),
        host_port,
    }
}

pub fn bridge(name: &str) -> CreateNetwork {
    CreateNetwork::named(name)
}

pub const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

/// Makes a network of both families, with these options of its driver.
pub fn create(networks: &Networks, name: &str, options: &[(&str, &str)]) {
    let pairs = options.iter();
    let wanted = CreateNetwork {
        enable_ipv6: true,
        options: pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..bridge(name)
    };
    networks.create(&wanted).unwrap();
}

pub fn v4(sandbox: &Sandbox) -> IpAddr {
    sandbox.endpoints[0].ipv4.unwrap().into()
}

pub fn v6(sandbox: &Sandbox) -> IpAddr {
    sandbox.endpoints[0].ipv6.unwrap().into()
}

/// A service in a namespace that sends its name and the address it sees its client at.
pub struct Service {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    pub fn start(namespace: BorrowedFd<'_>, name: &str, port: u16) -> Service {
        let open = || (TcpListener::bind(("::", port)), UdpSocket::bind(("::", port)));
        let (tcp, udp) = in_namespace(namespace, Kind::Network, open).unwrap();
        let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = [stop.clone(), stop.clone()];
        let [first, second] = stopped;
        let (one, two) = (name.to_owned(), name.to_owned());
        let stream = std::thread::spawn(move || {
            while !first.load(Ordering::SeqCst) {
                match tcp.accept() {
                    Ok((mut stream, from)) => drop(write!(stream, "{one} {}", from.ip().to_canonical())),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let datagram = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !second.load(Ordering::SeqCst) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{two} {}", from.ip().to_canonical()).as_bytes(), from);
                }
            }
        });
        Service {
            stop,
            threads: vec![stream, datagram],
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks a service from the calling thread's namespace; `None` when it does not answer.
pub fn ask(address: &str, port: u16) -> Option<String> {
    let at = SocketAddr::new(address.parse().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn ask_udp(address: &str, port: u16) -> Option<String> {
    let at = SocketAddr::new(address.parse().unwrap(), port);
    let socket = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(at).ok()?;
    socket.send(b"?").ok()?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// How a service is asked.
pub type Ask = fn(&str, u16) -> Option<String>;
/// What is asked, how and where, and whether it is reached.
pub type Case<'a> = (&'a str, Ask, &'a str, u16, bool);

/// Asks the service `web` from a machine that it sees at these addresses of IPv4 and IPv6.
pub fn assert_reached(who: &str, from: &impl AsFd, sources: [&str; 2], cases: &[Case<'_>]) {
    for &(what, how, address, port, reachable) in cases {
        let answer = inside(from, || how(address, port));
        let source = sources[usize::from(address.contains(':'))];
        let expected = reachable.then(|| format!("web {source}"));
        assert_eq!(answer, expected, "{what}, from the {who}");
    }
}

/// Somebody who goes on sending from one port, and says each time whether there was an answer.
pub fn goes_on_asking(from: &impl AsFd, address: &str, port: u16) -> impl Fn() -> bool {
    let socket = inside(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect((address, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    move || {
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 64]).is_ok()
    }
}

/// A container's resolver, driven by a thread as the monitor would drive it.
pub struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    pub fn start(sandbox: &mut Sandbox) -> Resolver {
        let sockets = sandbox.dns.take().expect("the sandbox has resolver sockets");
        let mut server = dns::Server::new(sockets, sandbox.dns_config.clone().unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || server.run(|| seen.load(Ordering::SeqCst)).unwrap());
        Resolver {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a container's monitor serves, by a thread that does as the monitor's process would.
pub struct Relay {
    stop: Arc<AtomicBool>,
    line: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Of the ports for which there are sockets.
    pub fn start(served: Served) -> Relay {
        let ports: Vec<(relay::Port, OwnedFd)> = served
            .sockets
            .into_iter()
            .map(|(place, socket)| (served.ports[place].clone(), socket))
            .collect();
        for (port, socket) in &ports {
            if port.transport == relay::Transport::Tcp {
                relay::listen(socket).unwrap();
            }
        }
        let (line, theirs) = UnixStream::pair().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            // One process after the other, as clients come.
            while !stopped.load(Ordering::SeqCst) {
                let own = ports
                    .iter()
                    .map(|(port, socket)| (port.clone(), socket.try_clone().unwrap()));
                relay::serve(theirs.try_clone().unwrap(), own.collect()).unwrap();
            }
        });
        Relay {
            stop,
            line: Some(line),
            thread: Some(thread),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.line = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The addresses a name has for a process in a container.
pub fn lookup(sandbox: &Sandbox, name: &str) -> Vec<String> {
    inside(&sandbox.netns, || {
        let output = Command::new("dig")
            .args([
                "+short",
                "+time=2",
                "+tries=1",
                "@127.0.0.11",
                name,
                "A",
                name,
                "AAAA",
            ])
            .output()
            .unwrap();
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    })
}

/// Waits for something that comes by itself, and says how long that took.
pub fn comes(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
}
