//! Syslog in its forms: RFC 3164, RFC 5424, and what the C library writes locally.
//!
//! Over a stream each message ends in a newline (RFC 6587 §3.4.2); RFC 5424 over TLS is counted (RFC 5425 §4.3).

use std::io;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use super::config::{Source, SyslogFormat, Transport};
use super::message::Message;
use super::transport::Connection;

pub(super) struct Syslog {
    pub(super) connection: Connection,
    facility: u8,
    format: SyslogFormat,
    hostname: String,
    tag: String,
    counted: bool,
    zone: TimeZone,
}

impl Syslog {
    pub(super) fn new(transport: &Transport, facility: u8, format: SyslogFormat, source: &Source) -> Self {
        Self {
            connection: Connection::new(transport),
            facility,
            format,
            hostname: source.hostname.clone(),
            tag: source.tag.clone(),
            counted: matches!(
                (transport, format),
                (Transport::Tls(..), SyslogFormat::Rfc5424 { .. })
            ),
            zone: TimeZone::system(),
        }
    }

    pub(super) fn send(&mut self, messages: &[Message], done: &mut usize) -> io::Result<()> {
        if self.connection.is_stream() {
            let all: Vec<u8> = messages.iter().flat_map(|message| self.form(message)).collect();
            self.connection.send(&all)?;
            *done += messages.len();
            return Ok(());
        }
        for message in messages {
            let datagram = self.form(message);
            self.connection.send(&datagram)?;
            *done += 1;
        }
        Ok(())
    }

    fn form(&self, message: &Message) -> Vec<u8> {
        let priority = self.facility | message.severity();
        let time = Timestamp::from_nanosecond(i128::from(message.time))
            .unwrap_or_default()
            .to_zoned_datetime(self.zone.clone());
        let (pid, host, tag) = (std::process::id(), &self.hostname, &self.tag);
        let stamp = |time: &ZonedDateTime| time.strftime("%b %e %H:%M:%S").to_string();
        let head = match self.format {
            SyslogFormat::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp(&time)),
            SyslogFormat::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(&time)),
            SyslogFormat::Rfc5424 { micro } => {
                let form = if micro {
                    "%Y-%m-%dT%H:%M:%S%.6f%:z"
                } else {
                    "%Y-%m-%dT%H:%M:%S%:z"
                };
                let stamp = time.strftime(form).to_string().replace("+00:00", "Z");
                format!("<{priority}>1 {stamp} {host} {tag} {pid} {tag} - ")
            }
        };
        let mut out = head.into_bytes();
        out.extend_from_slice(&message.text);
        out.push(b'\n');
        if self.counted {
            let mut counted = format!("{} ", out.len()).into_bytes();
            counted.append(&mut out);
            return counted;
        }
        out
    }
}
