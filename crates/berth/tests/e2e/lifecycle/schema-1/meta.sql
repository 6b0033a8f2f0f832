-- meta.db as the first schema of every room left it, with a container that has ended, one that was never started, an image
-- of two names, a network, a volume and a port. The networks that
-- every daemon makes are left out: their names are the data root's. @ROOT@ stands for it.
PRAGMA application_id = 1114797160;
BEGIN TRANSACTION;
CREATE TABLE address (
        network TEXT NOT NULL, address TEXT NOT NULL, container TEXT NOT NULL,
        PRIMARY KEY (network, address)) STRICT, WITHOUT ROWID;
CREATE TABLE blob_origin (
        blob TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (blob, domain, path)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE build_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL,
    dockerfile TEXT NOT NULL,
    target TEXT NOT NULL,
    tags TEXT NOT NULL,
    begun INTEGER NOT NULL,
    ended INTEGER,
    image TEXT,
    error TEXT
) STRICT;
CREATE TABLE build_history_step (
    build INTEGER NOT NULL,
    number INTEGER NOT NULL,
    stage TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    code TEXT NOT NULL,
    hit INTEGER NOT NULL,
    reason TEXT NOT NULL,
    milliseconds INTEGER NOT NULL,
    identity TEXT NOT NULL,
    parts TEXT,
    inputs TEXT NOT NULL
) STRICT;
INSERT INTO "build_history_step" VALUES(1,1,'0',1,'RUN echo made > /made',0,'it was not built before',128,'sha256:7d31f501348c9e47a9f41432dd348d0f76ae38f50ba60d20a842196bb5f58dee','[["command","/bin/sh -c echo made > /made"],["user",""],["directory","/"],["--network","None"],["--security","sandbox"],["variable PATH","/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]]','sha256:40650d3a5d63b4493b1b59290d89336c60d3bc392d37a8441b9628cc71fa7fe8');
CREATE TABLE build_key (
    key TEXT PRIMARY KEY,
    record INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE build_mount (
    id TEXT PRIMARY KEY,
    snapshot INTEGER NOT NULL,
    description TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT;
CREATE TABLE build_record (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL,
    inputs TEXT NOT NULL,
    snapshot INTEGER,
    layer INTEGER NOT NULL,
    kind TEXT NOT NULL,
    description TEXT NOT NULL,
    created TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT;
CREATE TABLE component (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
INSERT INTO "component" VALUES('snapshot',1);
INSERT INTO "component" VALUES('image',1);
INSERT INTO "component" VALUES('network',1);
INSERT INTO "component" VALUES('volume',1);
INSERT INTO "component" VALUES('engine',1);
INSERT INTO "component" VALUES('build',1);
INSERT INTO "component" VALUES('build_history',1);
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
 ) STRICT;
INSERT INTO "containers" VALUES('6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a','ended','{"id":"6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a","name":"ended","created":"2026-11-30T02:20:43.16719592Z","path":"sh","args":["-c","echo said; exit 4"],"image":"box:1","image_id":"sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced","manifest":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced","size":405},"platform":{"architecture":"amd64","os":"linux"},"config":{"Hostname":"6d30bd0b0fc5","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["sh","-c","echo said; exit 4"],"Image":"box:1","Volumes":{},"WorkingDir":"","Entrypoint":null,"Labels":{"team":"a"}},"host_config":{"Binds":["kept:/data"],"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{"max-file":"3","max-size":"100m"}},"NetworkMode":"own","PortBindings":{},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":1},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"private","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"berth","Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":null,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":["/proc/acpi","/proc/asound","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/sched_debug","/proc/scsi","/proc/timer_list","/proc/timer_stats","/sys/devices/virtual/powercap","/sys/firmware"],"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]},"state":{"status":"exited","pid":0,"exit_code":4,"oom_killed":false,"error":"","started_at":"2026-11-30T02:20:43.460040772Z","finished_at":"2026-11-30T02:20:43.469584116Z"},"restart_count":1,"networks":{"own":{"IPAMConfig":null,"Links":null,"Aliases":null,"DriverOpts":null,"GwPriority":0,"NetworkID":"4aead0645b254b1a03d5aedd9b18bc1bd95f7d01d5d667d83f0de1255e4cab9a","EndpointID":"","Gateway":"","IPAddress":"","MacAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":["ended","6d30bd0b0fc5"]}},"ports":{},"mounts":[{"Type":"volume","Name":"kept","Source":"@ROOT@/volumes/kept/_data","Destination":"/data","Driver":"local","Mode":"","RW":true,"Propagation":""}],"sandbox_id":"6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a","files":{"dir":"@ROOT@/containers/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a","hosts":"@ROOT@/containers/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a/hosts","hostname":"@ROOT@/containers/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a/hostname","resolv_conf":"@ROOT@/containers/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a/resolv.conf","log":"@ROOT@/containers/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a/6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a-json.log"},"snapshot":3,"exits":2,"plan":[{"destination":"/data","read_only":false,"kind":{"Volume":{"name":"kept","driver":"local","no_copy":false,"subpath":"","anonymous":false}},"mode":""}],"stopped_by_hand":false}');
INSERT INTO "containers" VALUES('baa636f9a8448f477f74a4ea905703e0a0776e4520d90217f3971504a73f2922','made','{"id":"baa636f9a8448f477f74a4ea905703e0a0776e4520d90217f3971504a73f2922","name":"made","created":"2026-11-30T02:20:43.30944719Z","path":"true","args":[],"image":"box:1","image_id":"sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced","manifest":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced","size":405},"platform":{"architecture":"amd64","os":"linux"},"config":{"Hostname":"baa636f9a844","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"ExposedPorts":{"80/tcp":{}},"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=b"],"Cmd":["true"],"Image":"box:1","Volumes":{},"WorkingDir":"","Entrypoint":null,"Labels":{}},"host_config":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{"max-file":"3","max-size":"100m"}},"NetworkMode":"bridge","PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"0"}]},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"private","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"berth","Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":null,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":["/proc/acpi","/proc/asound","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/sched_debug","/proc/scsi","/proc/timer_list","/proc/timer_stats","/sys/devices/virtual/powercap","/sys/firmware"],"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]},"state":{"status":"created","pid":0,"exit_code":0,"oom_killed":false,"error":"","started_at":null,"finished_at":null},"restart_count":0,"networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","MacAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}},"ports":{},"mounts":[],"sandbox_id":"","files":{"dir":"@ROOT@/containers/baa636f9a8448f477f74a4ea905703e0a0776e4520d90217f3971504a73f2922","hosts":"","hostname":"","resolv_conf":"","log":""},"snapshot":4,"exits":0,"plan":[],"stopped_by_hand":false}');
CREATE TABLE image (
        digest TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        registered INTEGER NOT NULL
    ) STRICT;
INSERT INTO "image" VALUES('sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced','application/vnd.oci.image.manifest.v1+json',405,1796005243124463702);
CREATE TABLE image_blob (
        image TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        blob TEXT NOT NULL,
        PRIMARY KEY (image, blob)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "image_blob" VALUES('sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced','sha256:4f479a7100d4524340ad2b2bbb752d1bbb024c63ee7a7835f71c08b311444cfa');
INSERT INTO "image_blob" VALUES('sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced','sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced');
INSERT INTO "image_blob" VALUES('sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced','sha256:ba8294bfce8c669459f8d8ba3eac34b65f0ccd8d317cdc0db6a81783a65736f9');
CREATE TABLE image_name (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        tagged INTEGER NOT NULL
    ) STRICT;
INSERT INTO "image_name" VALUES('docker.io/library/box:1','sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced',1796005243124551362);
INSERT INTO "image_name" VALUES('docker.io/library/other:2','sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced',1796005243312851539);
CREATE TABLE image_snapshot (
        image TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        manifest TEXT NOT NULL,
        snapshot INTEGER NOT NULL,
        PRIMARY KEY (image, manifest)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "image_snapshot" VALUES('sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced','sha256:55b665657fe458aad3ff064bdcc500502e5b7534b658da36ff874e1a445d1ced',1);
CREATE TABLE layer_blob (
        diff TEXT NOT NULL,
        blob TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (diff, blob)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "layer_blob" VALUES('sha256:105adce89ef68449bfabca0aff763aef1c8e84176f46b9bd4ed4ff95bba83172','sha256:4f479a7100d4524340ad2b2bbb752d1bbb024c63ee7a7835f71c08b311444cfa','application/vnd.oci.image.layer.v1.tar+gzip',1289762);
CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
INSERT INTO "network" VALUES('4aead0645b254b1a03d5aedd9b18bc1bd95f7d01d5d667d83f0de1255e4cab9a','own','{"id":"4aead0645b254b1a03d5aedd9b18bc1bd95f7d01d5d667d83f0de1255e4cab9a","name":"own","driver":"bridge","scope":"local","created":"2026-11-30T02:20:43.137074496Z","enable_ipv4":true,"enable_ipv6":false,"internal":false,"attachable":false,"ingress":false,"ipam":{"driver":"default","options":{},"config":[{"subnet":"10.77.0.0/24","ip_range":null,"gateway":"10.77.0.1","aux":{}}]},"options":{},"labels":{"team":"a"}}');
CREATE TABLE port (
        proto TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL, container TEXT NOT NULL,
        PRIMARY KEY (proto, host_ip, host_port)) STRICT, WITHOUT ROWID;
INSERT INTO "port" VALUES('tcp','127.0.0.1',45678,'6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a');
CREATE TABLE sandbox (container TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE snapshot (
        -- AUTOINCREMENT: a number is never given out again.
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        parent    INTEGER REFERENCES snapshot (id),
        owner     TEXT NOT NULL,
        committed INTEGER NOT NULL DEFAULT 0,
        chain     TEXT UNIQUE,
        diff      TEXT,
        bytes     INTEGER,
        inodes    INTEGER,
        -- Whether the files are known to be on stable storage, and the boot in which they were written.
        settled   INTEGER NOT NULL DEFAULT 0,
        boot      TEXT NOT NULL DEFAULT ''
    ) STRICT;
INSERT INTO "snapshot" VALUES(1,NULL,'unpack:1',1,'sha256:105adce89ef68449bfabca0aff763aef1c8e84176f46b9bd4ed4ff95bba83172','sha256:105adce89ef68449bfabca0aff763aef1c8e84176f46b9bd4ed4ff95bba83172',1998848,10,0,'5ddb8c7d-4354-486d-b36a-d0d47a1a1d91');
INSERT INTO "snapshot" VALUES(2,1,'init:',1,'sha256:4e50db4f84772a531353c421949a25abf7a6b4b42eff9becd516c29b69fa310b',NULL,NULL,NULL,0,'5ddb8c7d-4354-486d-b36a-d0d47a1a1d91');
INSERT INTO "snapshot" VALUES(3,2,'container:6d30bd0b0fc5cc5e8a889722855b70856a2dc4d8cb95e50bd1827febb64fc16a',0,NULL,NULL,NULL,NULL,0,'');
INSERT INTO "snapshot" VALUES(4,2,'container:baa636f9a8448f477f74a4ea905703e0a0776e4520d90217f3971504a73f2922',0,NULL,NULL,NULL,NULL,0,'');
CREATE TABLE volume (
        name      TEXT PRIMARY KEY,
        driver    TEXT NOT NULL,
        labels    TEXT NOT NULL,
        options   TEXT NOT NULL,
        created   INTEGER NOT NULL,
        anonymous INTEGER NOT NULL
    ) STRICT;
INSERT INTO "volume" VALUES('kept','local','{"team":"a"}','{}',1796005243,0);
CREATE INDEX snapshot_parent ON snapshot (parent);
CREATE INDEX snapshot_unsettled ON snapshot (id) WHERE committed = 1 AND settled = 0;
CREATE INDEX image_name_digest ON image_name (digest);
CREATE INDEX address_container ON address (container);
CREATE INDEX port_container ON port (container);
CREATE INDEX build_record_identity ON build_record (identity);
CREATE INDEX build_record_snapshot ON build_record (snapshot);
CREATE INDEX build_key_record ON build_key (record);
CREATE INDEX build_history_step_build ON build_history_step (build);
CREATE INDEX build_history_step_code ON build_history_step (stage, code);
CREATE INDEX build_history_step_identity ON build_history_step (identity);
COMMIT;
