//! Every form in which objects are shown: tables, raw lists, documents, whole inspections at one version of the API.

use super::script::both;

#[test]
fn lists_and_documents() {
    guard!();
    both(
        r#"
        $ network create --subnet $NET.0/24 --label a=b app
        <id>
        $ run -d --name web --network app --ip $NET.77 --label a=b -e A=b -v data:/data -p 127.0.0.1:$PORT:80 -m 64m box:1 sleep 1000
        <id>
        $ tag box:1 team/app:1
        % ps --format raw
        % ps -s --format raw
        % ps -a --no-trunc --format "table {{.ID}}\t{{.Command}}\t{{.Ports}}\t{{.Mounts}}\t{{.Labels}}"
        # Repositories of one image come from docker's client in the order of a map, which is none.
        & $CLIENT images --format raw | tr '\n' '|' | sed 's/||/\n/g' | sort
        & $CLIENT images --format 'table {{.Repository}}\t{{.CreatedAt}}\t{{.CreatedSince}}\t{{.Digest}}' | sort
        & $CLIENT images --digests --no-trunc | sort
        & DOCKER_API_VERSION=1.50 $CLIENT images --format json | sort
        % network ls --format raw
        & $CLIENT network ls --format json | sed 's/"CreatedAt":"[^"]*"//'
        % network ls --no-trunc
        % volume ls --format raw
        % volume ls --format json
        % history --format json box:1
        % history --no-trunc box:1
        % system df --format json
        % system df --format raw
        & DOCKER_API_VERSION=1.50 $CLIENT inspect web | sed -E 's/"(Pid|MacAddress|StartedAt|Created|SandboxKey)": [^,]*//'
        & DOCKER_API_VERSION=1.50 $CLIENT image inspect box:1
        & DOCKER_API_VERSION=1.50 $CLIENT network inspect app | sed -E 's/"(MacAddress|Created)": [^,]*//'
        & DOCKER_API_VERSION=1.50 $CLIENT volume inspect data
        & $CLIENT inspect -f '{{.HostConfig.Binds}} {{.HostConfig.CapAdd}} {{len .Mounts}} {{index .Config.Env 0}} {{printf "%q" .Name}} {{join .Config.Cmd ","}} {{upper .State.Status}}' web
        & $CLIENT inspect -f '{{range $k, $v := .NetworkSettings.Ports}}{{$k}} {{range $v}}{{.HostIp}} {{.HostPort}}{{end}}{{end}}' web
        & $CLIENT inspect -f '{{json .HostConfig.PortBindings}} {{json .Config.Labels}} {{json .State.Health}}' web
        "#,
    );
}
