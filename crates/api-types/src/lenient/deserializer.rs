//! A serde deserializer over a parsed document that follows Go's rules (see the parent module).
//!
//! Each step knows the struct it started in and the keys it went through, for the error text. Integers are read exactly;
//! a fraction or a value out of range is refused.

use std::fmt;
use std::rc::Rc;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

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
/// can be.
#[derive(Debug, Clone, Default)]
struct Place<'a> {
    began_in: Option<&'static str>,
    last: Option<Rc<Key<'a>>>,
}

#[derive(Debug)]
struct Key<'a> {
    name: &'a str,
    above: Option<Rc<Key<'a>>>,
}

impl<'a> Place<'a> {
    fn enter(&self, name: &'a str) -> Self {
        let above = self.last.clone();
        Self {
            began_in: self.began_in,
            last: Some(Rc::new(Key { name, above })),
        }
    }

    fn begin(&self, name: &'static str) -> Self {
        Self {
            began_in: self.began_in.or(Some(name)),
            last: self.last.clone(),
        }
    }

    fn keys(&self) -> Vec<&'a str> {
        let each = std::iter::successors(self.last.as_deref(), |key| key.above.as_deref());
        let mut keys: Vec<&str> = each.map(|key| key.name).collect();
        keys.reverse();
        keys
    }

    fn refuse(&self, value: &Value, wanted: &str) -> TypeError {
        let got = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if wanted.contains("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
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

pub(super) struct Lenient<'a> {
    value: &'a Value,
    place: Place<'a>,
}

impl<'a> Lenient<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            place: Place::default(),
        }
    }

    fn refuse<T>(&self, wanted: &str) -> Result<T, TypeError> {
        Err(self.place.refuse(self.value, wanted))
    }

    fn signed<'de, V: Visitor<'de>>(self, visitor: V, wanted: &str) -> Result<V::Value, TypeError> {
        match self.value.as_i64() {
            Some(number) => visitor
                .visit_i64(number)
                .map_err(|_: TypeError| self.place.refuse(self.value, wanted)),
            None => self.refuse(wanted),
        }
    }

    fn unsigned<'de, V: Visitor<'de>>(self, visitor: V, wanted: &str) -> Result<V::Value, TypeError> {
        match self.value.as_u64() {
            Some(number) => visitor
                .visit_u64(number)
                .map_err(|_: TypeError| self.place.refuse(self.value, wanted)),
            None => self.refuse(wanted),
        }
    }

    fn items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Array(items) => {
                let place = self.place;
                let items = items.iter().map(|value| Lenient {
                    value,
                    place: place.clone(),
                });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            Value::Null => {
                visitor.visit_seq(SeqDeserializer::<_, TypeError>::new(std::iter::empty::<&str>()))
            }
            // Only visitors of lists that may be written as one string accept this (`Cmd`, `Entrypoint`, …).
            Value::String(text) => visitor
                .visit_str(text)
                .map_err(|_: TypeError| self.place.refuse(self.value, "[]string")),
            _ => self.refuse("[]string"),
        }
    }

    fn entries<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Object(entries) => {
                let place = self.place;
                let entries = entries.iter().map(|(key, value)| {
                    (
                        key.as_str(),
                        Lenient {
                            value,
                            place: place.enter(key),
                        },
                    )
                });
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Value::Null => visitor.visit_map(MapDeserializer::<_, TypeError>::new(std::iter::empty::<(
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
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => visitor.visit_str(text),
            Value::Array(_) => self.items(visitor),
            Value::Object(_) => self.entries(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Null => visitor.visit_bool(false),
            _ => self.refuse("bool"),
        }
    }

    signed!(deserialize_i8 => "int8", deserialize_i16 => "int16", deserialize_i32 => "int32", deserialize_i64 => "int64");
    unsigned!(deserialize_u8 => "uint8", deserialize_u16 => "uint16", deserialize_u32 => "uint32", deserialize_u64 => "uint64");

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value.as_f64() {
            Some(number) => visitor.visit_f64(number),
            None => self.refuse("float64"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Null => visitor.visit_str(""),
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
            Value::Array(items) if items.len() > length => {
                let place = self.place;
                let items = items.iter().take(length).map(|value| Lenient {
                    value,
                    place: place.clone(),
                });
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
            Value::Object(entries) => entries,
            Value::Null => {
                return visitor.visit_map(MapDeserializer::<_, TypeError>::new(std::iter::empty::<(
                    &str,
                    &str,
                )>()));
            }
            _ => return self.refuse(name),
        };
        let place = self.place.begin(name);
        visitor.visit_map(Fields {
            entries,
            fields: fields.iter(),
            next: None,
            place,
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

/// Walks the wanted fields, not the given keys: unknown keys are never looked at, and null ones are passed over.
struct Fields<'a> {
    entries: &'a Map<String, Value>,
    fields: std::slice::Iter<'static, &'static str>,
    next: Option<Lenient<'a>>,
    place: Place<'a>,
}

impl<'a> Fields<'a> {
    fn find(&self, field: &str) -> Option<&'a Value> {
        self.entries.get(field).or_else(|| {
            let mut others = self.entries.iter();
            others
                .find(|(key, _)| key.eq_ignore_ascii_case(field))
                .map(|(_, value)| value)
        })
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeError> {
        while let Some(field) = self.fields.next() {
            match self.find(field) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    self.next = Some(Lenient {
                        value,
                        place: self.place.enter(field),
                    });
                    let key: de::value::StrDeserializer<'_, TypeError> = (*field).into_deserializer();
                    return seed.deserialize(key).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TypeError> {
        match self.next.take() {
            Some(value) => seed.deserialize(value),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}
