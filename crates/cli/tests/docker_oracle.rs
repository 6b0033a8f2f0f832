//! The docker client as the oracle: the same command line must send the same create request.
//!
//! Skipped with a printed reason where there is no docker client.
#![allow(clippy::unwrap_used, clippy::panic)]

mod daemon;
mod docker;

use daemon::{Answer, Daemon};
use serde_json::Value;
use std::process::{Command, Stdio};

fn engine() -> Daemon {
    Daemon::start(|request| match request.path.starts_with("/containers/create") {
        true => Answer::Json(201, format!(r#"{{"Id":"{}","Warnings":[]}}"#, "1".repeat(64))),
        false => Answer::Json(404, r#"{"message":"no such thing"}"#.into()),
    })
}

/// null, empty and absent mean the same to an engine, except for the lists named here.
fn simplify(value: Value) -> Value {
    const TELLING: &[&str] = &["Entrypoint", "MaskedPaths", "ReadonlyPaths", "EndpointsConfig"];
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| match (key.as_str(), simplify(value)) {
                    // Docker's client sends variables and binds in the order of a Go map.
                    ("Env" | "Binds", Value::Array(mut items)) => {
                        items.sort_by_key(ToString::to_string);
                        (key, Value::Array(items))
                    }
                    (_, value) => (key, value),
                })
                .filter(|(key, value)| {
                    let empty = value.is_null()
                        || value.as_array().is_some_and(Vec::is_empty)
                        || value
                            .as_object()
                            .is_some_and(|map| map.is_empty() && key.len() > 2 && !key.contains('/'))
                        || value.as_str() == Some("")
                        || value.as_i64() == Some(0)
                        || value == &Value::Bool(false) && key != "Init";
                    !empty || (TELLING.contains(&key.as_str()) && !value.is_null())
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(simplify).collect()),
        other => other,
    }
}

fn body(daemon: &Daemon) -> Option<(String, Value)> {
    let request = daemon.requests.lock().unwrap().pop()?;
    Some((
        request.path,
        simplify(serde_json::from_slice(&request.body).ok()?),
    ))
}

#[test]
fn create_bodies_are_dockers() {
    let docker = match docker::client(docker::RECENT) {
        Ok(docker) => docker,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let env_file = write("env", "A=1\n# c\nB=x y\nHOME\n");
    let label_file = write("labels", "l1=v\nl2\n");
    let seccomp = write(
        "seccomp.json",
        "{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"syscalls\": []}",
    );
    let lines = [
        "busybox".to_owned(),
        "--name n busybox sh -c 'exit 3'".to_owned(),
        "-i -t --rm busybox".to_owned(),
        "-it -e A=1 -e HOME -e NOSUCHVARIABLE_X -w /x -u 1:2 -h host --domainname d busybox".to_owned(),
        format!("--env-file {env_file} --label-file {label_file} -l a=b -l c busybox"),
        "-p 80 -p 8080:80 -p 127.0.0.1:81:81/udp -p 90-92:90-92 -P --expose 7 --expose 10-12/udp busybox".to_owned(),
        "-p [::1]:80:80 -p 1000-1010:99 busybox".to_owned(),
        "-v /a:/b:ro -v name:/c -v /anon -v ./rel:/d --volumes-from x:ro --volume-driver local busybox".to_owned(),
        "--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777 busybox".to_owned(),
        "--mount src=v,dst=/v,volume-nocopy,volume-driver=local,volume-opt=type=tmpfs,volume-label=a=b,volume-subpath=s busybox".to_owned(),
        "--mount type=bind,src=/a,dst=/b,ro,bind-recursive=writable --mount type=image,src=i,dst=/i,image-subpath=s busybox".to_owned(),
        "--tmpfs /run:size=1m,mode=700 --tmpfs /x busybox".to_owned(),
        "-m 512m --memory-swap -1 --memory-reservation 256m --memory-swappiness 10 --kernel-memory 1g --oom-kill-disable --oom-score-adj 5 --shm-size 64m busybox".to_owned(),
        "--cpus 1.5 -c 512 --cpu-period 1000 --cpu-quota 500 --cpuset-cpus 0,1 --cpuset-mems 0 --cpu-rt-period 1 --cpu-rt-runtime 2 --pids-limit 100 busybox".to_owned(),
        "--blkio-weight 100 --blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:100 busybox".to_owned(),
        "--restart on-failure:3 --stop-signal SIGINT --stop-timeout 3 --init --read-only --privileged busybox".to_owned(),
        "--restart unless-stopped --init=false busybox".to_owned(),
        "--cap-add NET_ADMIN --cap-add ALL --cap-drop MKNOD --group-add 10 --userns host --uts host --pid host --ipc host --cgroupns private --cgroup-parent /x busybox".to_owned(),
        format!("--security-opt seccomp={seccomp} --security-opt no-new-privileges --security-opt label=disable busybox"),
        "--security-opt seccomp=unconfined --security-opt systempaths=unconfined --security-opt apparmor=unconfined busybox".to_owned(),
        "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2 busybox".to_owned(),
        "--health-cmd true --health-interval 5s --health-timeout 1m --health-retries 2 --health-start-period 1s --health-start-interval 2s busybox".to_owned(),
        "--no-healthcheck busybox".to_owned(),
        "--ulimit nofile=512:1024 --ulimit nproc=5 --sysctl net.core.somaxconn=10 --annotation a=b --storage-opt size=1g --runtime r busybox".to_owned(),
        "--device /dev/fuse --device /dev/a:/dev/b:r --device vendor.com/gpu=all --device-cgroup-rule 'c 1:3 rwm' busybox".to_owned(),
        "--dns 1.1.1.1 --dns-search a.b --dns-search . --dns-option ndots:1 --add-host a:10.0.0.1 --add-host b=host-gateway busybox".to_owned(),
        "--network host busybox".to_owned(),
        "--network net --network-alias a --ip 10.0.0.2 --ip6 fd00::2 --mac-address 02:42:ac:11:00:02 --link x:y --link-local-ip 169.254.0.2 busybox".to_owned(),
        "--network name=net,alias=a,alias=b,ip=10.0.0.3,driver-opt=k=v,gw-priority=5 --network net2 busybox".to_owned(),
        "--network container:x --isolation default --link a:b busybox".to_owned(),
        "--mac-address 02:42:ac:11:00:02 --ip 10.0.0.2 busybox".to_owned(),
        "--entrypoint /x busybox a".to_owned(),
        "-e B=1 -e A=2 -e HOME -e A=3 --cap-add net_admin --cap-drop ALL --cap-drop mknod busybox".to_owned(),
        "--entrypoint= busybox".to_owned(),
        "-a stdin -a stderr busybox".to_owned(),
        "--platform linux/arm64 --pull never --quiet busybox".to_owned(),
    ];
    let daemon = engine();
    let mut wrong = Vec::new();
    for line in &lines {
        let words = split(line);
        let status = Command::new(&docker)
            .args(["-H", &daemon.host(), "create"])
            .args(&words)
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        let theirs = body(&daemon);
        let mut all = vec!["create"];
        all.extend(words.iter().map(String::as_str));
        let code = daemon.run(&all);
        let ours = body(&daemon);
        if code != status.code().unwrap_or(-1) {
            wrong.push(format!("{line}: exit code {code}, docker {status}"));
        }
        if ours != theirs {
            wrong.push(format!(
                "{line}:\n ours   {}\n docker {}",
                show(&ours, &theirs),
                show(&theirs, &ours)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The members in which one differs from the other.
fn show(one: &Option<(String, Value)>, other: &Option<(String, Value)>) -> String {
    let Some((path, value)) = one else {
        return "nothing".into();
    };
    let other = other.as_ref().map(|(_, value)| value.clone()).unwrap_or_default();
    let mut out = vec![path.clone()];
    differ(value, &other, "", &mut out);
    out.join(" ")
}

fn differ(one: &Value, other: &Value, at: &str, out: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                differ(
                    value,
                    right.get(key).unwrap_or(&Value::Null),
                    &format!("{at}.{key}"),
                    out,
                );
            }
        }
        _ if one != other => out.push(format!("{at}={one}")),
        _ => {}
    }
}

fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    words
}
