//! Containers that exist: seen, entered, changed, stopped and removed.

use super::script::both;

#[test]
fn a_life() {
    guard!();
    both(
        r#"
        $ create --name web -e A=b box:1 sleep 1000
        <id>
        $ ps
        CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
        $ ps -a
        CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
        <id>  box:1  "sleep 1000"  <age> ago  Created  web
        $ start web
        web
        $ ps
        CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
        <id>  box:1  "sleep 1000"  <age> ago  Up <age>  web
        $ ps -q --no-trunc
        <id>
        $ ps --format "{{.Names}}: {{.Image}} {{.Command}} {{.State}} {{.Networks}} {{.Mounts}} {{.Size}}"
        web: box:1 "sleep 1000" running bridge  4.1kB (virtual …
        $ ps --format "table {{.Names}}\t{{.State}}"
        NAMES  STATE
        web  running
        @ $CLIENT ps --format json | grep -o '"Platform":{[^}]*}'
        "Platform":{"architecture":"amd64","os":"linux"}
        $ ps --format "{{.Platform}}"
        linux/amd64
        $ ps --filter frob=1
        ! invalid filter 'frob'
        [1]
        $ exec web sh -c "echo $A; exit 4"
        b
        [4]
        $ exec -i web cat
        < typed
        typed
        $ exec -e C=d -w /srv -u 33 web sh -c "echo $C; pwd; id -u"
        d
        /srv
        33
        $ exec -t web busybox tty
        /dev/pts/0
        $ exec -d web touch /tmp/detached
        @ for i in 1 2 3 4 5 6 7 8 9; do $CLIENT exec web ls /tmp/detached && break; sleep 0.1; done 2>/dev/null
        /tmp/detached
        $ exec web nosuch
        exec: "nosuch": executable file not found in $PATH
        [127]
        $ exec web /etc
        exec: "/etc": is a directory
        [126]
        $ exec nosuch true
        ! No such container: nosuch
        [1]
        @ $CLIENT exec --privileged web busybox grep CapEff /proc/self/status | test "$(cat)" = "$(grep CapBnd /proc/self/status | sed s/Bnd/Eff/)"
        @ printf 'F=from file\n' > env
        $ exec --env-file env web sh -c "echo $F"
        from file
        @ $CLIENT top web -o pid,args | sed 's/^ *[0-9]*  *//'
        PID  COMMAND
        sleep 1000
        @ $CLIENT top web | head -n1
        UID  PID  PPID  C  STIME  TTY  TIME  CMD
        $ top web -o args
        ! Couldn't find PID field in ps output
        [1]
        $ stats --no-stream --format "{{.Name}} {{.PIDs}}" web
        web 1
        @ $CLIENT stats --no-stream web | head -n1
        CONTAINER ID  NAME  CPU %  MEM USAGE / LIMIT  MEM %  NET I/O  BLOCK I/O  PIDS
        $ diff web
        C /tmp
        A /tmp/detached
        $ pause web
        web
        $ ps --format "{{.Status}}"
        Up <age> (Paused)
        $ exec web true
        ! is paused
        [1]
        $ unpause web
        web
        $ unpause web
        ! is not paused
        [1]
        $ rename web site
        $ rename web other
        ! No such container: web
        [1]
        $ inspect -f "{{.Name}} {{.State.Status}}" site
        /site running
        $ port site
        $ kill -s WINCH site
        site
        $ kill -s FROB site
        ! FROB
        [1]
        $ restart -t 0 site
        site
        $ stop -t 0 site
        site
        $ stop site
        site
        $ inspect -f "{{.State.Status}} {{.State.ExitCode}}" site
        exited 137
        $ kill site
        ! is not running
        [1]
        $ wait site
        137
        $ wait nosuch
        ! No such container: nosuch
        [1]
        $ ps -a --format "{{.Status}}"
        Exited (137) <age> ago
        $ start -a site nosuch
        ! you cannot start and attach multiple containers at once
        [1]
        $ rm nosuch site
        site
        ! No such container: nosuch
        [1]
        $ ps -aq
        $ rm -f nosuch
        ! No such container: nosuch
        "#,
    );
}

#[test]
fn attached_and_logged() {
    guard!();
    both(
        r#"
        $ run -d -i --name talk box:1 sh -c "read line; echo got $line; exit 5"
        <id>
        $ attach talk
        < hello
        got hello
        [5]
        $ logs talk
        got hello
        $ start -a -i talk
        < again
        got again
        [5]
        $ logs talk
        got hello
        got again
        $ logs --tail 1 talk
        got again
        $ logs -n 0 talk
        $ logs -t --tail 1 talk
        <time> got again
        $ logs --since 1h talk
        got hello
        got again
        $ logs --since 0 --until 1h talk
        $ logs --since nonsense talk
        ! nonsense
        [1]
        $ logs --tail many talk
        got hello
        got again
        $ logs nosuch
        ! No such container: nosuch
        [1]
        $ attach talk
        ! cannot attach to a stopped container
        [1]
        $ run --name both box:1 sh -c "echo out; echo err >&2"
        out
        ! err
        $ logs both
        out
        ! err
        $ run -d --name lines box:1 sh -c "echo 1; echo 2; sleep 1; echo 3"
        <id>
        $ logs -f lines
        1
        2
        3
        $ run --rm -a stderr box:1 sh -c "echo out; echo err >&2"
        ! err
        $ run -d --name first box:1 false
        <id>
        $ wait first lines
        1
        0
        "#,
    );
}

#[test]
fn listed_and_pruned() {
    guard!();
    both(
        r#"
        $ create --name one --label k=1 box:1 true
        <id>
        $ create --name two --label k=2 box:1 true
        <id>
        $ run -d --name three --label k=3 -v data:/data box:1 sleep 1000
        <id>
        $ run --name four box:1 sh -c "exit 9"
        [9]
        $ ps -a --format "{{.Names}} {{.State}}"
        four exited
        three running
        two created
        one created
        $ ps -a --filter label=k --format "{{.Names}}"
        three
        two
        one
        $ ps -a --filter exited=9 --format "{{.Names}}"
        four
        $ ps -a --filter before=two --format "{{.Names}}"
        one
        $ ps -a --filter since=two --format "{{.Names}}"
        four
        three
        $ ps -a --filter volume=data --format "{{.Names}}"
        three
        $ ps -a --filter ancestor=box:1 --filter name=t --format "{{.Names}}"
        three
        two
        $ ps -a --filter network=bridge --filter status=created --format "{{.Names}}"
        two
        one
        $ ps -l --format "{{.Names}}"
        four
        $ ps -n 2 --format "{{.Names}}"
        four
        three
        $ ps -s --format "{{.Names}} {{.Size}}"
        three 8.19kB (virtual …
        $ container ls -a --filter name=^/four$ -q
        <id>
        $ inspect one two -f "{{.Name}}"
        /one
        /two
        $ inspect nosuch
        []
        ! o such object: nosuch
        [1]
        $ inspect -f "{{.Nosuch}}" one
        ! Nosuch
        [1]
        $ inspect --type volume one
        []
        [1]
        $ container inspect -s -f "{{.SizeRw}}" one
        4096
        $ container prune -f --filter label=k=1
        Deleted Containers:
        <id>
        Total reclaimed space: 4.096kB
        @ echo n | $CLIENT container prune
        WARNING! This will remove all stopped containers.
        Are you sure you want to continue? [y/N]
        $ container prune -f
        Deleted Containers:
        <id>
        <id>
        Total reclaimed space: 8.192kB
        $ ps -a --format "{{.Names}}"
        three
        $ rm three
        ! container is running
        [1]
        $ rm -f three
        three
        $ rm
        ! requires at least 1 argument
        [1]
        "#,
    );
}
