//! `run`: networks, names, addresses and ports.

use super::script::both;

#[test]
fn networks_names_and_addresses() {
    guard!();
    both(
        r#"
        $ network create --subnet $NET.0/24 app
        <id>
        $ run -d --name web --network app --network-alias www --ip $NET.77 box:1 sleep 1000
        <id>
        $ inspect -f "{{.NetworkSettings.Networks.app.IPAddress}}" web
        $NET.77
        $ run --rm --network app box:1 sh -c "for name in www web; do nslookup $name | busybox awk '/^Address: 10/ {print $2}'; done"
        $NET.77
        $NET.77
        $ exec web sh -c "busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'"
        $NET.77/24
        $ run --rm --network app --ip $NET.77 box:1 true
        ! Address already in use
        [125]
        $ run --rm --network app --ip 10.9.9.9 box:1 true
        ! 10.9.9.9
        [125]
        $ run --rm --network nosuch box:1 true
        ! network nosuch not found
        [125]
        $ run --rm --network none box:1 ls /sys/class/net
        lo
        @ test "$($CLIENT run --rm --network host box:1 busybox readlink /proc/self/ns/net)" = "$(readlink /proc/self/ns/net)"
        $ run --rm --network container:web box:1 sh -c "busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'"
        $NET.77/24
        $ run --rm --network container:nosuch box:1 true
        ! No such container: nosuch
        [125]
        $ run --rm --network app --mac-address 02:42:ac:11:00:99 box:1 cat /sys/class/net/eth0/address
        02:42:ac:11:00:99
        $ run --rm --dns 192.0.2.53 --dns-search example.org --dns-option ndots:2 box:1 sh -c "busybox grep -E '^(nameserver|search|options)' /etc/resolv.conf"
        nameserver 192.0.2.53
        search example.org
        options ndots:2
        $ run --rm --add-host db:192.0.2.1 --add-host cache=192.0.2.2 box:1 sh -c "busybox grep 192.0.2 /etc/hosts"
        192.0.2.1	db
        192.0.2.2	cache
        $ run --rm --add-host bad box:1 true
        ! bad format for add-host: "bad"
        [125]
        $ run --rm --link web:alias --network app box:1 sh -c "nslookup alias | busybox awk '/^Address: 10/ {print $2}'"
        $NET.77
        "#,
    );
}

#[test]
fn published_ports() {
    guard!();
    both(
        r#"
        $ run -d --name web -p 127.0.0.1::80 -p 127.0.0.1::53/udp box:1 nc -ll -p 80 -e echo answered
        <id>
        @ $CLIENT port web | sed 's/:[0-9]*$/:N/'
        53/udp -> 127.0.0.1:N
        80/tcp -> 127.0.0.1:N
        @ $CLIENT port web 80 | sed 's/:[0-9]*$/:N/'
        127.0.0.1:N
        @ for i in 1 2 3 4 5 6 7 8 9; do busybox nc $($CLIENT port web 80 | tr : ' ') </dev/null && break; sleep 0.1; done
        answered
        $ port web 81
        ! ublic port '81' published for web
        [1]
        @ $CLIENT run -d --name thief -p $($CLIENT port web 80):80 box:1 true
        <id>
        ! port is already allocated
        [125]
        $ run -d --name all -P --expose 8080 --expose 90-91 box:1 nc -ll -p 8080 -e echo all
        <id>
        @ $CLIENT port all | grep -F 0.0.0.0 | sed 's/:[0-9]*$/:N/'
        90/tcp -> 0.0.0.0:N
        91/tcp -> 0.0.0.0:N
        8080/tcp -> 0.0.0.0:N
        @ for i in 1 2 3 4 5 6 7 8 9; do busybox nc 127.0.0.1 $($CLIENT port all 8080 | head -n1 | sed s/.*://) </dev/null && break; sleep 0.1; done
        all
        $ run -p 99999:80 box:1 true
        ! 99999
        [125]
        $ run -p 80:frob box:1 true
        ! frob
        [125]
        $ run -p 1.2.3.4.5:80:80 box:1 true
        [125]
        "#,
    );
}
