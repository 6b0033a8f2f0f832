//! Volumes and networks as objects.

use super::script::both;

#[test]
fn volumes() {
    guard!();
    both(
        r#"
        $ volume create data
        data
        $ volume create --label a=b --opt type=tmpfs --opt device=tmpfs mem
        mem
        $ volume create
        <id>
        $ volume create data
        data
        $ volume create -d nosuch other
        ! nosuch
        [1]
        $ volume create "bad name"
        ! includes invalid characters for a local volume name
        [1]
        $ volume ls --filter name=data
        DRIVER  VOLUME NAME
        local  data
        $ volume ls -q --filter label=a=b
        mem
        $ volume ls --filter dangling=true --filter name=mem --format "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}}"
        mem local local a=b
        $ volume ls --filter frob=1
        ! invalid filter 'frob'
        [1]
        $ volume inspect -f "{{.Name}} {{.Driver}} {{json .Options}} {{json .Labels}}" mem
        mem local {"device":"tmpfs","type":"tmpfs"} {"a":"b"}
        $ volume inspect nosuch
        []
        ! get nosuch: no such volume
        [1]
        $ create --name user -v data:/data box:1 true
        <id>
        $ volume rm data
        ! volume is in use
        [1]
        $ volume rm nosuch
        ! get nosuch: no such volume
        [1]
        $ volume rm -f nosuch
        nosuch
        $ rm user
        user
        $ volume prune -f
        Deleted Volumes:
        <id>
        Total reclaimed space: 0B
        $ volume ls -q
        data
        mem
        @ $CLIENT volume prune -af --filter label!=a=b
        Deleted Volumes:
        data
        Total reclaimed space: 0B
        $ volume rm mem
        mem
        "#,
    );
}

#[test]
fn networks() {
    guard!();
    both(
        r#"
        $ network ls --format "{{.Name}} {{.Driver}} {{.Scope}}"
        bridge bridge local
        host host local
        none null local
        $ network create --subnet $NET.0/24 --gateway $NET.1 --ip-range $NET.128/25 --label a=b --internal app
        <id>
        $ network create app
        ! network with name app already exists
        [1]
        $ network create --subnet $NET.0/24 overlap
        ! Pool overlaps with other one on this address space
        [1]
        $ network create -d nosuch other
        ! nosuch
        [1]
        $ network create --subnet bad other
        ! bad
        [1]
        $ network ls --filter name=app
        NETWORK ID  NAME  DRIVER  SCOPE
        <id>  app  bridge  local
        $ network ls -q --filter label=a=b --no-trunc
        <id>
        $ network ls --filter type=custom --format "{{.Name}} {{.Internal}} {{.IPv6}} {{.Labels}}"
        app true false a=b
        $ network inspect -f "{{(index .IPAM.Config 0).Subnet}} {{.Internal}}" app
        $NET.0/24 true
        $ network inspect nosuch
        []
        ! network nosuch not found
        [1]
        $ run -d --name web box:1 sleep 1000
        <id>
        $ network connect --ip $NET.77 --alias www app web
        $ exec web sh -c "busybox ip -4 -o addr | busybox awk '$4 ~ /^$NET/ {print $4}'"
        $NET.77/24
        @ $CLIENT inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}' web
        app
        bridge
        $ network inspect -f "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}" app
        web $NET.77/24
        $ network connect app web
        ! endpoint with name web already exists in network app
        [1]
        $ network connect app nosuch
        ! No such container: nosuch
        [1]
        $ network rm app
        ! has active endpoints
        [1]
        $ network disconnect app web
        $ network disconnect app web
        ! is not connected to network app
        [1]
        $ network disconnect -f nosuch web
        ! network nosuch not found
        [1]
        $ exec web sh -c "busybox ip -4 -o addr | busybox grep -c $NET"
        0
        [1]
        $ network rm bridge
        ! bridge is a pre-defined network and cannot be removed
        [1]
        $ network rm nosuch app
        app
        ! network nosuch not found
        [1]
        $ network create one
        <id>
        $ network prune -f
        Deleted Networks:
        one
        $ network prune -f
        @ echo n | $CLIENT network prune
        WARNING! This will remove all custom networks not used by at least one container.
        Are you sure you want to continue? [y/N]
        "#,
    );
}
