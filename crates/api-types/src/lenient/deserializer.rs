//! A serde deserializer over a parsed document that follows Go's rules (see the parent module).
//!
//! Each step knows the struct it started in and the keys it went through, for the error text. Integers are read exactly;
//! a fraction or a value out of range is refused.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Number;

use super::document::Node;

/// A value of the wrong shape, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(String);

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The struct the reading began in, and the last of the keys since. Nearly always nobody asks, so it costs as little as
/// can be: each place stands in the frame of the call that reads it, and knows the one above.
#[derive(Debug, Clone, Copy, Default)]
struct Place<'p> {
    began_in: Option<&'static str>,
    key: Option<&'p str>,
    above: Option<&'p Place<'p>>,
}

impl<'p> Place<'p> {
    fn enter(&'p self, key: &'p str) -> Self {
        Self {
            began_in: self.began_in,
            key: Some(key),
            above: Some(self),
        }
    }

    fn begin(self, name: &'static str) -> Self {
        Self {
            began_in: self.began_in.or(Some(name)),
            ..self
        }
    }

    fn keys(&self) -> Vec<&'p str> {
        let each = std::iter::successors(Some(*self), |place| place.above.copied());
        let mut keys: Vec<&str> = each.filter_map(|place| place.key).collect();
        keys.reverse();
        keys
    }

    fn refuse(&self, value: &Node<'_>, wanted: &str) -> TypeError {
        let got = match value {
            Node::Null => "null".to_owned(),
            Node::Bool(_) => "bool".to_owned(),
            Node::Number(number) if wanted.contains("int") => format!("number {number}"),
            Node::Number(_) => "number".to_owned(),
            Node::String(_) => "string".to_owned(),
            Node::Array(_) => "array".to_owned(),
            Node::Object(_) => "object".to_owned(),
        };
        let keys = self.keys();
        TypeError(match self.began_in {
            Some(name) if !keys.is_empty() => format!(
                "json: cannot unmarshal {got} into Go struct field {name}.{} of type {wanted}",
                keys.join(".")
            ),
            _ => format!("json: cannot unmarshal {got} into Go value of type {wanted}"),
        })
    }
}

/// A part of a document, and where it is.
pub(super) struct Lenient<'p> {
    value: &'p Node<'p>,
    place: Place<'p>,
}

impl<'p> Lenient<'p> {
    pub(super) fn root(value: &'p Node<'p>) -> Self {
        Self {
            value,
            place: Place::default(),
        }
    }

    fn refuse<T>(&self, wanted: &str) -> Result<T, TypeError> {
        Err(self.place.refuse(self.value, wanted))
    }

    fn signed<'de, V: Visitor<'de>>(self, visitor: V, wanted: &str) -> Result<V::Value, TypeError> {
        match self.value.number().and_then(Number::as_i64) {
            Some(number) => visitor
                .visit_i64(number)
                .map_err(|_: TypeError| self.place.refuse(self.value, wanted)),
            None => self.refuse(wanted),
        }
    }

    fn unsigned<'de, V: Visitor<'de>>(self, visitor: V, wanted: &str) -> Result<V::Value, TypeError> {
        match self.value.number().and_then(Number::as_u64) {
            Some(number) => visitor
                .visit_u64(number)
                .map_err(|_: TypeError| self.place.refuse(self.value, wanted)),
            None => self.refuse(wanted),
        }
    }

    fn items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::Array(items) => {
                let place = self.place;
                let items = items.iter().map(|value| Lenient { value, place });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            Node::Null => visitor.visit_seq(SeqDeserializer::<_, TypeError>::new(std::iter::empty::<&str>())),
            // Only visitors of lists that may be written as one string accept this (`Cmd`, `Entrypoint`, …).
            Node::String(text) => visitor
                .visit_str(text)
                .map_err(|_: TypeError| self.place.refuse(self.value, "[]string")),
            _ => self.refuse("[]string"),
        }
    }

    fn entries<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::Object(entries) => {
                let place = self.place;
                let entries = entries.iter().map(|(key, value)| {
                    let place = place.enter(key);
                    (&**key, Lenient { value, place })
                });
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Node::Null => visitor.visit_map(MapDeserializer::<_, TypeError>::new(std::iter::empty::<(
                &str,
                &str,
            )>())),
            _ => self.refuse("map[string]string"),
        }
    }
}

impl<'de> IntoDeserializer<'de, TypeError> for Lenient<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! signed {
    ($($method:ident => $name:literal),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
            self.signed(visitor, $name)
        })*
    };
}

macro_rules! unsigned {
    ($($method:ident => $name:literal),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
            self.unsigned(visitor, $name)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Lenient<'_> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Number(number) => {
                if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Node::String(text) => visitor.visit_str(text),
            Node::Array(_) => self.items(visitor),
            Node::Object(_) => self.entries(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Null => visitor.visit_bool(false),
            _ => self.refuse("bool"),
        }
    }

    signed!(deserialize_i8 => "int8", deserialize_i16 => "int16", deserialize_i32 => "int32", deserialize_i64 => "int64");
    unsigned!(deserialize_u8 => "uint8", deserialize_u16 => "uint16", deserialize_u32 => "uint32", deserialize_u64 => "uint64");

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value.number().and_then(Number::as_f64) {
            Some(number) => visitor.visit_f64(number),
            None => self.refuse("float64"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::String(text) => visitor.visit_str(text),
            Node::Null => visitor.visit_str(""),
            _ => self.refuse("string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.items(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Node::Array(items) if items.len() > length => {
                let place = self.place;
                let items = items.iter().take(length).map(|value| Lenient { value, place });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            _ => self.items(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.entries(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let entries = match self.value {
            Node::Object(entries) => entries,
            Node::Null => {
                return visitor.visit_map(MapDeserializer::<_, TypeError>::new(std::iter::empty::<(
                    &str,
                    &str,
                )>()));
            }
            _ => return self.refuse(name),
        };
        visitor.visit_map(Fields {
            entries,
            found: match entries.len() > FEW_KEYS {
                true => found_at_once(entries, fields),
                false => Vec::new(),
            },
            fields: fields.iter().enumerate(),
            next: None,
            place: self.place.begin(name),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct enum identifier ignored_any
    }
}

type Entry<'p> = (Cow<'p, str>, Node<'p>);

/// So many keys are looked through for each field. Nobody means more; who sends more has them all looked at once.
const FEW_KEYS: usize = 256;

/// What an object says for each field.
fn found_at_once<'p>(entries: &'p [Entry<'p>], fields: &[&str]) -> Vec<Option<&'p Node<'p>>> {
    let mut found = vec![(false, None); fields.len()];
    for (key, value) in entries {
        for (field, (is_exact, found)) in fields.iter().zip(&mut found) {
            let same = key == field;
            if same || (!*is_exact && key.eq_ignore_ascii_case(field)) {
                (*is_exact, *found) = (same, Some(value));
            }
        }
    }
    found.into_iter().map(|(_, found)| found).collect()
}

/// Walks the wanted fields, not the given keys: unknown keys are never looked at, and null ones are passed over.
struct Fields<'p> {
    entries: &'p [Entry<'p>],
    /// What there is for each field, where the keys are many.
    found: Vec<Option<&'p Node<'p>>>,
    fields: std::iter::Enumerate<std::slice::Iter<'static, &'static str>>,
    next: Option<(&'static str, &'p Node<'p>)>,
    place: Place<'p>,
}

impl<'p> Fields<'p> {
    /// What the last key says that is this one, or else the last that is it in another case.
    fn find(&self, place: usize, field: &str) -> Option<&'p Node<'p>> {
        if self.entries.len() > FEW_KEYS {
            return self.found.get(place).copied().flatten();
        }
        let last = |is: fn(&str, &str) -> bool| {
            let found = self.entries.iter().rev().find(|(key, _)| is(key, field));
            found.map(|(_, value)| value)
        };
        last(|key, field| key == field).or_else(|| last(str::eq_ignore_ascii_case))
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeError> {
        while let Some((place, field)) = self.fields.next() {
            match self.find(place, field) {
                None | Some(Node::Null) => {}
                Some(value) => {
                    self.next = Some((*field, value));
                    let key: de::value::StrDeserializer<'_, TypeError> = (*field).into_deserializer();
                    return seed.deserialize(key).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TypeError> {
        let Some((field, value)) = self.next.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let place = self.place.enter(field);
        seed.deserialize(Lenient { value, place })
    }
}
