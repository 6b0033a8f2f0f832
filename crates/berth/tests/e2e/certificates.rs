//! Keys and certificates for tests, made by openssl.

use std::path::Path;
use std::process::Command;

use crate::support::text;

fn tool(program: &str, args: &[&str], dir: &Path) -> bool {
    match Command::new(program).args(args).current_dir(dir).output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program} {args:?}: {}",
                text(&output.stderr)
            );
            true
        }
        Err(_) => {
            println!("skipped: needs {program}");
            false
        }
    }
}

/// A certificate for `address`, an IP address or a name, signed by itself as `openssl req -x509` does, or by `authority`.
pub fn certificate(dir: &Path, name: &str, address: &str, authority: Option<&str>) -> bool {
    let (key, cert) = (format!("{name}.key"), format!("{name}.crt"));
    let subject = format!("/CN={name}");
    let kind = match address.parse::<std::net::IpAddr>() {
        Ok(_) => "IP",
        Err(_) => "DNS",
    };
    let alternative = format!("subjectAltName={kind}:{address}");
    let mut args = vec![
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &cert,
        "-addext",
        &alternative,
    ];
    let (ca, ca_key);
    if let Some(authority) = authority {
        ca = format!("{authority}.crt");
        ca_key = format!("{authority}.key");
        args.extend([
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
    }
    tool("openssl", &args, dir)
}
