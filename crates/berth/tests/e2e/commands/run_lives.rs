//! `run`: how a container begins again, is watched, is logged and ends.

use super::script::both;

#[test]
fn restarts_stops_and_logs() {
    guard!();
    both(
        r#"
        $ run -d --name again --restart on-failure:2 box:1 false
        <id>
        @ for i in $(seq 100); do [ "$($CLIENT inspect -f '{{.RestartCount}} {{.State.Status}}' again)" = '2 exited' ] && break; sleep 0.1; done; $CLIENT inspect -f '{{.RestartCount}} {{.State.ExitCode}}' again
        2 1
        $ run -d --restart sometimes box:1 true
        ! invalid restart policy
        [125]
        $ run --rm --restart always box:1 true
        [125]
        $ run -d --name hears --stop-signal USR1 box:1 sh -c "trap 'echo heard; exit 7' USR1; echo ready; while true; do sleep 0.05; done"
        <id>
        @ for i in $(seq 100); do $CLIENT logs hears | grep -q ready && break; sleep 0.05; done
        $ stop hears
        hears
        $ logs hears
        ready
        heard
        $ wait hears
        7
        $ run -d --name deaf --stop-timeout 1 box:1 sh -c "trap '' TERM; echo ready; while true; do sleep 0.05; done"
        <id>
        @ for i in $(seq 100); do $CLIENT logs deaf | grep -q ready && break; sleep 0.05; done
        $ stop deaf
        deaf
        $ inspect -f "{{.State.ExitCode}} {{.Config.StopTimeout}}" deaf
        137 1
        $ run --stop-signal FROB box:1 true
        ! FROB
        [125]
        $ run -d --name healthy --health-cmd "test -f /tmp/ok || touch /tmp/ok" --health-interval 100ms --health-timeout 5s --health-retries 2 --health-start-period 1s box:1 sleep 1000
        <id>
        @ for i in $(seq 100); do [ "$($CLIENT inspect -f '{{.State.Health.Status}}' healthy)" = healthy ] && break; sleep 0.1; done; $CLIENT ps --filter name=healthy --format '{{.Status}}'
        Up <age> (healthy)
        $ run -d --name ill --health-cmd "echo no; exit 1" --health-interval 100ms --health-retries 1 box:1 sleep 1000
        <id>
        @ for i in $(seq 100); do [ "$($CLIENT inspect -f '{{.State.Health.Status}}' ill)" = unhealthy ] && break; sleep 0.1; done; $CLIENT inspect -f '{{.State.Health.Status}} {{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}' ill
        unhealthy 1 no
        $ run -d --no-healthcheck --health-cmd true box:1 true
        ! --no-healthcheck conflicts with --health-* options
        [125]
        $ run -d --health-cmd true --health-interval -1s box:1 true
        [125]
        $ run --name said --label a=b --log-opt labels=a box:1 sh -c "echo out; echo err >&2"
        out
        $ logs --details said
        a=b out
        $ run --name local --log-driver local --log-opt max-size=10k --log-opt max-file=2 box:1 echo kept
        kept
        $ logs local
        kept
        $ run --name silent --log-driver none box:1 echo shown
        shown
        $ logs silent
        ! configured logging driver does not support reading
        [1]
        $ run --log-driver frob box:1 true
        ! frob
        [125]
        $ run --log-opt frob=1 box:1 true
        ! unknown log opt 'frob' for json-file log driver
        [125]
        "#,
    );
}
