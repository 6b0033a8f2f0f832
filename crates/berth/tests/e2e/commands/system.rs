//! The engine about itself, its events, its disk, and what it does not have.

use super::script::{both, both_on};
use crate::support::Daemon;

#[test]
fn version_info_and_search() {
    guard!();
    let args = [
        "--label",
        "a=1",
        "--label",
        "b=2",
        "--insecure-registry",
        "hub.example:5000",
        "--registry-mirror",
        "https://mirror.example/",
    ];
    both_on(
        &Daemon::start_with(&args),
        r#"
        $ version -f "{{.Server.Os}}/{{.Server.Arch}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}"
        linux/amd64 1.53 1.40
        @ $CLIENT version | grep -c -E '^(Client|Server)'
        2
        @ $CLIENT version | sed -n '/^Server/,$p' | sed 's/:  .*//' | head -n4
        Server: Berth
        Engine:
        Version
        API version
        $ info -f "{{.Driver}} {{.LoggingDriver}} {{.CgroupDriver}} {{.Containers}} {{.Images}} {{.OSType}} {{.Swarm.LocalNodeState}}"
        overlayfs json-file cgroupfs 0 1 linux inactive
        @ $CLIENT info | sed -n '/^Server/,$p' | sed -n '/^Server:/,/^ Images/p;/^ Labels/,/^ Exp/p;/Security Options/,/cgroupns/p;/Insecure/,/Live/p'
        Server:
        Containers: 0
        Running: 0
        Paused: 0
        Stopped: 0
        Images: 1
        Security Options:
        seccomp
        Profile: builtin
        cgroupns
        Labels:
        a=1
        b=2
        Experimental: false
        Insecure Registries:
        hub.example:5000
        ::1/128
        127.0.0.0/8
        Registry Mirrors:
        https://mirror.example/
        Live Restore Enabled: true
        $ info -f "{{.Nosuch}}"
        ! Nosuch
        [1]
        $ info -f "{{.Nosuch"
        ! template parsing error
        [64]
        $ version -f "{{.Nosuch"
        ! template parsing error
        [64]
        $ version -f "{{.Nosuch}}"
        ! Nosuch
        [1]
        $ search 127.0.0.1:1/nosuch
        ! 127.0.0.1:1
        [1]
        $ frob
        [1]
        $ --frob ps
        ! unknown flag: --frob
        [125]
        $ ps --frob
        ! unknown flag: --frob
        [125]
        @ test "$($CLIENT completion bash | grep -c complete)" -gt 0
        @ $CLIENT completion zsh | head -n1 | cut -c1-8
        #compdef
        @ test "$($CLIENT completion fish | grep -c 'complete -c')" -gt 0
        "#,
    );
}

#[test]
fn events() {
    guard!();
    both(
        r#"
        @ sleep 1.1; date +%s > since
        $ run --name web --label a=b box:1 true
        $ network create app
        <id>
        $ rm web
        web
        $ volume create data
        data
        $ tag box:1 app:1
        @ $CLIENT events --since $(cat since) --until $(($(date +%s) + 1)) --format '{{.Type}} {{.Action}}' | grep -v -E ' (prune|disconnect|connect|attach)$'
        container create
        container start
        container die
        network create
        container destroy
        volume create
        image tag
        @ $CLIENT events --since $(cat since) --until $(($(date +%s) + 1)) --filter container=web --filter event=die
        <time> container die <id> (a=b, execDuration=0, exitCode=0, image=box:1, name=web)
        @ $CLIENT events --since $(cat since) --until $(($(date +%s) + 1)) --filter type=volume --format json | grep -o '"Action":"[a-z]*"'
        "Action":"create"
        $ events --since nonsense
        ! nonsense
        [1]
        "#,
    );
}

#[test]
fn disk() {
    guard!();
    both(
        r#"
        $ create --name web -v data:/data box:1 true
        <id>
        $ tag box:1 used:1
        $ network create app
        <id>
        @ $CLIENT system df | awk '{print $1, $2, $3, $4}'
        TYPE TOTAL ACTIVE SIZE
        Images 1 1 …
        Containers 1 0 4.096kB
        Local Volumes 1 1
        Build Cache 0 0
        % system df
        & $CLIENT system df -v | sed '/^Disk space/,$d'
        $ system df --format "{{.Type}} {{.TotalCount}} {{.Active}}"
        Images 1 1
        Containers 1 0
        Local Volumes 1 1
        Build Cache 0 0
        @ echo n | $CLIENT system prune
        WARNING! This will remove:
        - all stopped containers
        - all networks not used by at least one container
        - all dangling images
        - unused build cache
        Are you sure you want to continue? [y/N]
        @ $CLIENT system prune -f | sed 's/space: [1-9].*/space: some/'
        Deleted Containers:
        <id>
        Deleted Networks:
        app
        Total reclaimed space: some
        $ volume ls -q
        data
        $ system prune -f --volumes
        Total reclaimed space: 0B
        $ system prune -f --filter frob=1
        ! frob
        [1]
        "#,
    );
}
