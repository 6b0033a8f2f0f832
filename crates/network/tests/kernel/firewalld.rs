//! A real firewalld on the host, started, reloaded, restarted and stopped beside our rules, under traffic. It runs in the
//! machine of the test, with a message bus and directories of its own, so that the real host has none of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use host::*;
use network::PortChoice::Fixed;
use network::{Proto, SandboxRequest};
use sys::namespace::{Kind, in_namespace};

use crate::host;

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

/// firewalld as Debian has it, and who asks it.
struct Firewalld {
    bus: PathBuf,
    log: PathBuf,
    config: PathBuf,
    _bus: Process,
    daemon: Option<Process>,
}

impl Firewalld {
    fn new(dir: &Path) -> Firewalld {
        let (bus, config, log) = (dir.join("bus"), dir.join("bus.conf"), dir.join("firewalld.log"));
        let text = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/></policy></busconfig>",
            bus.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(process);
        comes("the message bus", || bus.exists());
        Firewalld {
            bus,
            log,
            config: dir.join("firewalld"),
            _bus: process,
            daemon: None,
        }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.bus.display())
    }

    fn start(&mut self) {
        let places = "mount --make-rprivate / && for place in /etc/firewalld /run /var/log; do \
                      mount -t tmpfs none $place || exit 1; done; \
                      exec firewalld --nofork --nopid --system-config=\"$0\"";
        std::fs::create_dir_all(&self.config).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", places])
            .arg(&self.config)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(Process(child));
        comes("firewalld", || self.asked(&["--state"]).is_ok());
    }

    fn asked(&self, what: &[&str]) -> Result<String, String> {
        let output = Command::new("firewall-cmd")
            .args(what)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr))),
        }
    }

    fn does(&self, what: &[&str]) {
        if let Err(told) = self.asked(what) {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("firewall-cmd {what:?}: {told}\n{log}");
        }
    }

    fn stop(&mut self) {
        self.daemon = None;
    }
}

/// Somebody who asks over one connection all the time, and counts the answers.
struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Asking {
    fn start(mut connection: TcpStream) -> Asking {
        connection
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            let mut byte = [7];
            while !stopped.load(Ordering::SeqCst) {
                connection.write_all(&byte)?;
                connection.read_exact(&mut byte)?;
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Asking {
            stop,
            answered,
            thread,
        }
    }

    fn goes_on(&self, after: &str) {
        let so_far = self.answered.load(Ordering::SeqCst);
        comes(&format!("an answer after {after}"), || {
            self.thread.is_finished() || self.answered.load(Ordering::SeqCst) > so_far + 1
        });
    }
}

/// A server that sends back what comes, to as many as connect.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn a_firewall_that_comes_reloads_and_goes_takes_nothing_of_ours_along() {
    for program in ["firewalld", "firewall-cmd", "dbus-daemon"] {
        let there = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status();
        if !there.is_ok_and(|status| status.success()) {
            println!("skipped: needs {program}");
            return;
        }
    }
    machine(|host| {
        let networks = host.open();
        create(&networks, "app", &[]);
        let wanted = SandboxRequest {
            ports: vec![
                publish(Proto::Tcp, 80, None, Fixed(8080)),
                publish(Proto::Udp, 80, None, Fixed(8080)),
                publish(Proto::Tcp, 7, None, Fixed(8007)),
            ],
            ..request("web", &["app"])
        };
        let web = networks.attach(&wanted).unwrap();
        let other = networks.attach(&request("other", &["app"])).unwrap();
        let _services = [
            Service::start(web.netns.as_fd(), "web", 80),
            Service::start(host.lan.as_fd(), "lan", 80),
        ];
        let listen = || TcpListener::bind("[::]:7").unwrap();
        echo(in_namespace(web.netns.as_fd(), Kind::Network, listen).unwrap());
        let published = |when: &str| {
            for (address, source) in [(HOST, "198.51.100.2"), (HOST6, "2001:db8:51::2")] {
                for how in [ask, ask_udp] {
                    let seen = inside(&host.lan, || how(address, 8080));
                    assert_eq!(seen, Some(format!("web {source}")), "{address}, {when}");
                }
            }
        };
        let everything = |when: &str| {
            published(when);
            let addresses = [
                (v4(&web).to_string(), v4(&other)),
                (v6(&web).to_string(), v6(&other)),
            ];
            for (address, source) in addresses {
                let seen = inside(&other.netns, || ask(&address, 80));
                assert_eq!(seen, Some(format!("web {source}")), "{address}, {when}");
            }
            for (address, source) in [("198.51.100.2", HOST), ("2001:db8:51::2", HOST6)] {
                let seen = inside(&other.netns, || ask(address, 80));
                assert_eq!(seen, Some(format!("lan {source}")), "{address}, {when}");
            }
        };
        everything("before");
        let table = || sh(&format!("nft list table inet {} 2>&1 || true", host.tag()));
        let rules = table();
        let asking = [HOST, HOST6].map(|address| {
            let connect = || TcpStream::connect((address, 8007)).unwrap();
            Asking::start(inside(&host.lan, connect))
        });
        let stays = |what: &str| {
            comes(&format!("our table after {what}"), || table() == rules);
            asking.iter().for_each(|one| one.goes_on(what));
        };
        let mut firewalld = Firewalld::new(host.root.path());
        firewalld.start();
        assert!(sh("nft list tables").contains("table inet firewalld"));
        stays("its start");
        // It lets in what was translated by itself, and the rest where the bridge is in a zone that may.
        published("its start");
        let bridge = format!("--add-interface=br-{}", networks.get("app").unwrap().id.short());
        firewalld.does(&["--permanent", "--zone=trusted", &bridge]);
        for reload in ["--reload", "--complete-reload"] {
            firewalld.does(&[reload]);
            stays(reload);
            everything(reload);
        }
        firewalld.stop();
        firewalld.start();
        stays("a restart");
        everything("a restart");
        for one in asking {
            one.stop.store(true, Ordering::SeqCst);
            one.thread.join().unwrap().expect("a connection that goes on");
        }
        // Everybody's rules are taken away, and it comes again. What is under way at that moment may be reset.
        let is_back = |what: &str| comes(&format!("our table after {what}"), || table() == rules);
        firewalld.stop();
        sh("nft flush ruleset");
        firewalld.start();
        is_back("a flush and a start");
        everything("a flush and a start");
        firewalld.stop();
        is_back("its end");
        everything("its end");
        assert!(!sh("nft list tables").contains("firewalld"));
        networks.detach(&wanted.container).unwrap();
        networks.tear_down().unwrap();
    });
}
