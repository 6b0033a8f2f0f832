//! `run`: who the process is and what it starts with.

use super::script::both;

#[test]
fn words_environment_and_place() {
    guard!();
    both(
        r#"
        $ run --rm box:1 echo hi there
        hi there
        $ run --rm -i box:1 cat
        < first
        < second
        first
        second
        $ run --rm -t box:1 busybox tty
        /dev/pts/0
        $ run --rm box:1 sh -c "exit 3"
        [3]
        $ run --rm -e A=b -e INHERITED -e NOWHERE box:1 sh -c "echo $A $INHERITED ${NOWHERE-unset}"
        b from outside unset
        @ printf 'ONE=1\n# a comment\nTWO=two words\nINHERITED\n' > env
        $ run --rm --env-file env -e ONE=2 box:1 sh -c "echo $ONE $TWO $INHERITED"
        2 two words from outside
        $ run --rm --env-file nosuch box:1 true
        ! no such file or directory
        [125]
        $ run --rm -w /srv box:1 sh -c pwd
        /srv
        $ run --rm -w /made/for/it box:1 sh -c pwd
        /made/for/it
        $ run --rm -w relative box:1 true
        ! invalid
        [125]
        $ run --rm -u 33:44 box:1 id
        uid=33(web) gid=44 groups=44
        $ run --rm -u web box:1 sh -c "id -u; echo $HOME"
        33
        /srv
        $ run --rm -u nosuch box:1 true
        ! unable to find user nosuch
        [125]
        $ run --rm -u 33:44 --group-add 77 --group-add 78 box:1 id -G
        44 77 78
        $ run --rm --entrypoint echo box:1 from the entrypoint
        from the entrypoint
        $ run --rm --entrypoint "" box:1 echo none
        none
        $ run --rm --hostname here --domainname example.org box:1 hostname
        here
        $ run --rm --hostname here box:1 sh -c "busybox grep -c here /etc/hosts; cat /etc/hostname"
        1
        here
        $ run --rm --platform linux/amd64 box:1 echo for this one
        for this one
        $ run --rm --platform linux/frob/x box:1 true
        [125]
        $ run --rm --pull never nosuch:1 true
        ! No such image: nosuch:1
        [125]
        $ run --rm --pull sometimes box:1 true
        ! sometimes
        [125]
        $ run --rm --pull missing box:1 echo there
        there
        "#,
    );
}

#[test]
fn names_labels_and_files_of_ids() {
    guard!();
    both(
        r#"
        $ run -d --name web --label a=b --label bare --cidfile id box:1 sleep 1000
        <id>
        @ wc -c < id
        64
        @ test "$(cat id)" = "$($CLIENT inspect -f '{{.Id}}' web)"
        $ ps --filter label=a=b --format "{{.Names}} {{.Labels}}"
        web a=b,bare=
        $ ps --filter label=a=c -q
        $ inspect -f "{{json .Config.Labels}}" web
        {"a":"b","bare":""}
        @ printf 'from=file\nbare2\n' > labels
        $ run --rm --label-file labels --name labelled -d box:1 sleep 1000
        <id>
        $ inspect -f "{{json .Config.Labels}}" labelled
        {"from":"file"}
        $ run -d --name web box:1 true
        ! Conflict. The container name "/web" is already in use by container
        [125]
        $ run --cidfile id box:1 true
        ! container ID file found, make sure the other container isn't running or delete id
        [125]
        $ run -d --name -bad box:1 true
        ! Invalid container name
        [125]
        $ create --name made --cidfile id2 box:1 true
        <id>
        @ test "$(cat id2)" = "$($CLIENT inspect -f '{{.Id}}' made)"
        $ run --rm --name once box:1 true
        $ ps -a --filter name=once --format "{{.Names}}"
        "#,
    );
}

#[test]
fn rights() {
    guard!();
    both(
        r#"
        $ run --rm box:1 busybox grep CapEff /proc/self/status
        CapEff:	00000000a80425fb
        $ run --rm --cap-drop ALL box:1 busybox grep CapEff /proc/self/status
        CapEff:	0000000000000000
        $ run --rm --cap-drop ALL --cap-add NET_ADMIN --cap-add cap_chown box:1 busybox grep CapEff /proc/self/status
        CapEff:	0000000000001001
        $ run --rm --cap-drop MKNOD box:1 busybox mknod /srv/null c 1 3
        [1]
        $ run --rm --cap-add NOSUCH box:1 true
        ! NOSUCH
        [125]
        @ $CLIENT run --rm --privileged box:1 busybox grep CapEff /proc/self/status | test "$(cat)" = "$(grep CapBnd /proc/self/status | sed s/Bnd/Eff/)"
        $ run --rm --privileged box:1 busybox grep Seccomp: /proc/self/status
        Seccomp:	0
        $ run --rm box:1 busybox grep Seccomp: /proc/self/status
        Seccomp:	2
        $ run --rm --security-opt seccomp=unconfined box:1 busybox grep Seccomp: /proc/self/status
        Seccomp:	0
        $ run --rm box:1 busybox grep NoNewPrivs /proc/self/status
        NoNewPrivs:	0
        $ run --rm --security-opt no-new-privileges box:1 busybox grep NoNewPrivs /proc/self/status
        NoNewPrivs:	1
        $ run --rm --security-opt frob=1 box:1 true
        ! frob
        [125]
        $ run --rm box:1 sh -c "echo x > /proc/sys/kernel/hostname"
        [1]
        $ run --rm --security-opt systempaths=unconfined --privileged box:1 sh -c "echo there > /proc/sys/kernel/hostname; hostname"
        there
        $ run --rm --init box:1 cat /proc/1/comm
        docker-init
        $ run --rm box:1 cat /proc/1/comm
        cat
        $ run --rm --device /dev/full:/dev/brim box:1 sh -c "ls -l /dev/brim | busybox cut -c1; echo x > /dev/brim"
        c
        [1]
        # A device nobody drives: whether the rights are there is asked first.
        @ mknod node c 240 77
        $ run --rm --device $DIR/node:/dev/own:r box:1 sh -c "cat /dev/own; echo x > /dev/own"
        ! No such device
        ! Operation not permitted
        [1]
        $ run --rm --device /dev/nosuch box:1 true
        ! error gathering device information while adding custom device "/dev/nosuch": no such file or directory
        [127]
        "#,
    );
}
