//! Lists and maps that know null from empty, as Go's slices and maps do.
//!
//! `List` and `Map` behave like `Vec` and `BTreeMap` (they dereference to them); the one thing they add is how an *empty*
//! value is written: a value that was never given is written `null`, one that was given empty is written `[]` or `{}`.
//! Maps are ordered, because Go writes map keys sorted.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A list that is written `null` when it is empty and was never given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    items: Vec<T>,
    given: bool,
}

impl<T> List<T> {
    /// The list that was not given (`null`).
    pub const fn null() -> Self {
        Self {
            items: Vec::new(),
            given: false,
        }
    }

    /// The list that was given without items (`[]`).
    pub const fn empty() -> Self {
        Self {
            items: Vec::new(),
            given: true,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it would be written as `null`.
    pub fn is_null(&self) -> bool {
        !self.given && self.items.is_empty()
    }

    pub fn into_vec(self) -> Vec<T> {
        self.items
    }

    pub fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// The same items, never written as `null`.
    pub fn or_empty(mut self) -> Self {
        self.given = true;
        self
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> Deref for List<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.items
    }
}

impl<T> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.items
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, given: true }
    }
}

impl<T> From<List<T>> for Vec<T> {
    fn from(list: List<T>) -> Self {
        list.items
    }
}

impl<T> From<Option<Vec<T>>> for List<T> {
    fn from(items: Option<Vec<T>>) -> Self {
        let given = items.is_some();
        Self {
            items: items.unwrap_or_default(),
            given,
        }
    }
}

impl<T, const N: usize> From<[T; N]> for List<T> {
    fn from(items: [T; N]) -> Self {
        Vec::from(items).into()
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Vec::from_iter(items).into()
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T: PartialEq> PartialEq<Vec<T>> for List<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        self.items == *other
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_null() {
            serializer.serialize_none()
        } else {
            self.items.serialize(serializer)
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Vec<T>>::deserialize(deserializer)?.into())
    }
}

/// A map with string keys that is written `null` when it is empty and was never given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<V> {
    entries: BTreeMap<String, V>,
    given: bool,
}

impl<V> Map<V> {
    /// The map that was not given (`null`).
    pub const fn null() -> Self {
        Self {
            entries: BTreeMap::new(),
            given: false,
        }
    }

    /// The map that was given without entries (`{}`).
    pub const fn empty() -> Self {
        Self {
            entries: BTreeMap::new(),
            given: true,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it would be written as `null`.
    pub fn is_null(&self) -> bool {
        !self.given && self.entries.is_empty()
    }

    pub fn into_map(self) -> BTreeMap<String, V> {
        self.entries
    }

    pub fn as_map(&self) -> &BTreeMap<String, V> {
        &self.entries
    }

    /// The same entries, never written as `null`.
    pub fn or_empty(mut self) -> Self {
        self.given = true;
        self
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self::null()
    }
}

impl<V> Deref for Map<V> {
    type Target = BTreeMap<String, V>;
    fn deref(&self) -> &BTreeMap<String, V> {
        &self.entries
    }
}

impl<V> DerefMut for Map<V> {
    fn deref_mut(&mut self) -> &mut BTreeMap<String, V> {
        &mut self.entries
    }
}

impl<V> From<BTreeMap<String, V>> for Map<V> {
    fn from(entries: BTreeMap<String, V>) -> Self {
        Self { entries, given: true }
    }
}

impl<V> From<Map<V>> for BTreeMap<String, V> {
    fn from(map: Map<V>) -> Self {
        map.entries
    }
}

impl<V> From<Option<BTreeMap<String, V>>> for Map<V> {
    fn from(entries: Option<BTreeMap<String, V>>) -> Self {
        let given = entries.is_some();
        Self {
            entries: entries.unwrap_or_default(),
            given,
        }
    }
}

impl<V, const N: usize> From<[(String, V); N]> for Map<V> {
    fn from(entries: [(String, V); N]) -> Self {
        BTreeMap::from(entries).into()
    }
}

impl<V> FromIterator<(String, V)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        BTreeMap::from_iter(entries).into()
    }
}

impl<V> IntoIterator for Map<V> {
    type Item = (String, V);
    type IntoIter = std::collections::btree_map::IntoIter<String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a Map<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl<V: PartialEq> PartialEq<BTreeMap<String, V>> for Map<V> {
    fn eq(&self, other: &BTreeMap<String, V>) -> bool {
        self.entries == *other
    }
}

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_null() {
            serializer.serialize_none()
        } else {
            self.entries.serialize(serializer)
        }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<BTreeMap<String, V>>::deserialize(deserializer)?.into())
    }
}

/// The empty object `{}`: the value of sets such as `ExposedPorts` and `Volumes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}

/// Reads a list of strings that older clients may send as one bare string (`Cmd`, `Entrypoint`, `Shell`, `OnBuild`).
/// The bare string is understood by [`crate::lenient`] only.
pub(crate) fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List<String>, D::Error> {
    deserializer.deserialize_option(StringOrList)
}

struct StringOrList;

impl<'de> Visitor<'de> for StringOrList {
    type Value = List<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of strings or one string")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(List::null())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(List::null())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(List::from(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = List::empty();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_told_apart() {
        let null: List<String> = serde_json::from_str("null").unwrap();
        let empty: List<String> = serde_json::from_str("[]").unwrap();
        assert_eq!(serde_json::to_string(&null).unwrap(), "null");
        assert_eq!(serde_json::to_string(&empty).unwrap(), "[]");
        let null: Map<Empty> = serde_json::from_str("null").unwrap();
        let empty: Map<Empty> = serde_json::from_str("{}").unwrap();
        assert_eq!(serde_json::to_string(&null).unwrap(), "null");
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
    }

    #[test]
    fn a_null_list_that_gets_an_item_is_a_list() {
        let mut list = List::null();
        list.push("a");
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["a"]"#);
        let mut map = Map::null();
        map.insert("80/tcp".to_owned(), Empty {});
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"80/tcp":{}}"#);
    }
}
