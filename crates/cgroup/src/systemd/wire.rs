//! D-Bus messages as bytes: the handful of types that systemd's manager is spoken to with.
//!
//! Every value is aligned to its size from the start of the message; the body starts at a multiple of eight, so that
//! it can be put together apart from the header. Written little-endian; an answer may have either order. Source:
//! D-Bus Specification 0.42, "Type System" and "Message Protocol".

/// What answers may be at most; systemd's are some hundred bytes.
const LARGEST: usize = 1 << 20;
/// Byte order, type, flags, version, length of the body, serial number, length of the header's fields.
pub(super) const FIXED: usize = 16;

/// A property's value, each with its own type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Bytes(Vec<u8>),
    Pids(Vec<u32>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Flag(_) => "b",
            Value::Number(_) => "t",
            Value::Bytes(_) => "ay",
            Value::Pids(_) => "au",
            Value::Pairs(_) => "a(ss)",
        }
    }
}

pub(super) type Property = (&'static str, Value);

/// Bytes that grow, value by value.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub fn number(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn flag(&mut self, value: bool) {
        self.number(u32::from(value));
    }

    pub fn text(&mut self, text: &str) {
        self.number(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// The length counts from the first element, after its alignment.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.number(0);
        let place = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let written = length(self.bytes.len() - start).to_le_bytes();
        for (target, byte) in self.bytes.iter_mut().skip(place).zip(written) {
            *target = byte;
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.flag(*flag),
            Value::Number(number) => {
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Bytes(bytes) => self.array(1, |writer| writer.bytes.extend(bytes)),
            Value::Pids(pids) => self.array(4, |writer| pids.iter().for_each(|pid| writer.number(*pid))),
            Value::Pairs(pairs) => self.array(8, |writer| {
                for (first, second) in pairs {
                    writer.align(8);
                    writer.text(first);
                    writer.text(second);
                }
            }),
        }
    }

    /// `a(sv)`.
    pub fn properties(&mut self, properties: &[Property]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }

    /// An array of structures without any.
    pub fn nothing(&mut self) {
        self.array(8, |_| {});
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Whom a call goes to.
pub(super) struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

/// A method call, whole.
pub(super) fn call(serial: u32, target: &Target, member: &str, signature: &str, body: Writer) -> Vec<u8> {
    let mut message = Writer::default();
    message.bytes.extend([b'l', METHOD_CALL, 0, 1]);
    message.number(length(body.bytes.len()));
    message.number(serial);
    message.array(8, |writer| {
        let fields = [
            (PATH, "o", target.path),
            (INTERFACE, "s", target.interface),
            (MEMBER, "s", member),
            (DESTINATION, "s", target.destination),
        ];
        for (code, kind, text) in fields {
            writer.align(8);
            writer.bytes.push(code);
            writer.signature(kind);
            writer.text(text);
        }
        if !signature.is_empty() {
            writer.align(8);
            writer.bytes.push(SIGNATURE);
            writer.signature("g");
            writer.signature(signature);
        }
    });
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What of a received message is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    pub reply_to: Option<u32>,
    pub member: String,
    pub error: String,
    /// The texts and paths at the top of the body, in their order.
    pub texts: Vec<String>,
}

/// Bytes that follow the fixed part, from the fixed part; none where it is not that of a message.
pub(super) fn rest(fixed: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(fixed)?;
    reader.at = 4;
    let body = usize::try_from(reader.number()?).ok()?;
    reader.at = 12;
    let fields = usize::try_from(reader.number()?).ok()?;
    if body > LARGEST || fields > LARGEST {
        return None;
    }
    Some((FIXED + fields).next_multiple_of(8) - FIXED + body)
}

/// A whole message; none where it is malformed.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader::new(bytes)?;
    let mut message = Message {
        kind: *bytes.get(1)?,
        ..Message::default()
    };
    reader.at = 12;
    let end = FIXED.checked_add(usize::try_from(reader.number()?).ok()?)?;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (REPLY_SERIAL, "u") => message.reply_to = Some(reader.number()?),
            (MEMBER, "s") => message.member = reader.text()?,
            (ERROR_NAME, "s") => message.error = reader.text()?,
            (SIGNATURE, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            _ => return None,
        }
    }
    reader.align(8);
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.texts.push(reader.text()?),
            'u' | 'i' | 'b' => drop(reader.number()?),
            // Nothing that is asked for stands behind another type.
            _ => break,
        }
    }
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Reader<'a>> {
        let little = match bytes.first()? {
            b'l' => true,
            b'B' => false,
            _ => return None,
        };
        Some(Reader { bytes, at: 0, little })
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        Some(if self.little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?;
        self.byte().filter(|byte| *byte == 0)?;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_from_the_start() {
        let mut writer = Writer::default();
        writer.text("ab");
        writer.properties(&[("P", Value::Number(7)), ("Q", Value::Pids(vec![9]))]);
        let expected: &[u8] = &[
            2, 0, 0, 0, b'a', b'b', 0, 0, // text, and up to four
            44, 0, 0, 0, 0, 0, 0, 0, // length; the first structure starts at eight, uncounted
            1, 0, 0, 0, b'P', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, // name and type, up to eight
            7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'Q', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0,
        ];
        assert_eq!(writer.bytes, expected);
    }

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let target = Target {
            destination: "d.e",
            path: "/p",
            interface: "i.f",
        };
        let mut body = Writer::default();
        body.text("one");
        body.flag(true);
        body.text("two");
        let bytes = call(3, &target, "Member", "sbs", body);
        assert_eq!(rest(&bytes[..FIXED]), Some(bytes.len() - FIXED));
        let message = parse(&bytes).unwrap();
        assert_eq!(message.kind, METHOD_CALL);
        assert_eq!(message.member, "Member");
        assert_eq!(message.texts, ["one", "two"]);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn an_answer_may_be_big_endian() {
        let bytes: &[u8] = &[
            b'B',
            ERROR,
            0,
            1,
            0,
            0,
            0,
            7,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            31, // fixed
            REPLY_SERIAL,
            1,
            b'u',
            0,
            0,
            0,
            0,
            5,
            ERROR_NAME,
            1,
            b's',
            0,
            0,
            0,
            0,
            3,
            b'a',
            b'.',
            b'b',
            0,
            0,
            0,
            0,
            0,
            SIGNATURE,
            1,
            b'g',
            0,
            1,
            b's',
            0,
            0, // fields
            0,
            0,
            0,
            2,
            b'n',
            b'o',
            0,
        ];
        let message = parse(bytes).unwrap();
        assert_eq!((message.reply_to, message.error.as_str()), (Some(5), "a.b"));
        assert_eq!(message.texts, ["no"]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(rest(&[0; FIXED]), None);
        let mut huge = [0xff; FIXED];
        huge[0] = b'l';
        assert_eq!(rest(&huge), None);
    }
}
