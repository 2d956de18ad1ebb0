//! YAML with the line and column of every value, so that a problem can say where it is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// The most bytes of one file: that of a request of the control plane.
pub const MAX_FILE_BYTES: usize = 2 << 20;

/// Where something is, from 1; 0 where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self {
            place: Place {
                line: spanned.referenced.line(),
                column: spanned.referenced.column(),
            },
            kind: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
        let number =
            Number::from_f64(value).ok_or_else(|| E::custom(format!("{value} is not a number that JSON has")))?;
        Ok(Kind::Scalar(Value::Number(number)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Kind, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Kind::Fields(fields))
    }
}

impl Node {
    /// Reads a document.
    ///
    /// # Errors
    /// What makes it no YAML, and where.
    pub fn parse(text: &str) -> Result<Self, (Place, String)> {
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or(Place::default(), |at| Place {
                line: at.line(),
                column: at.column(),
            });
            // The first line says what; the rest of it shows the place, which we say ourselves.
            let text = error.without_snippet().to_string();
            (place, text.lines().next().unwrap_or("is not YAML").to_owned())
        })
    }

    /// Returns it as JSON, fields in their order.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::value).collect(),
            Kind::Fields(fields) => {
                let fields = fields.iter().map(|(name, node)| (name.clone(), node.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Returns the fields of a mapping.
    pub fn fields(&self) -> Option<&[(String, Node)]> {
        match &self.kind {
            Kind::Fields(fields) => Some(fields),
            _ => None,
        }
    }

    /// Returns the place of what a path like `versions.latest.messages[0].content` names, or of the nearest thing around it.
    pub fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        let mut rest = path;
        'walk: while !rest.is_empty() {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            match &node.kind {
                Kind::List(items) => {
                    let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
                        break;
                    };
                    let Some(item) = index.parse().ok().and_then(|at: usize| items.get(at)) else {
                        break;
                    };
                    (node, rest) = (item, after);
                }
                Kind::Fields(fields) => {
                    // Names may have dots: the longest that fits is meant.
                    let mut named: Vec<&(String, Node)> = fields
                        .iter()
                        .filter(|(name, _)| {
                            let after = rest.strip_prefix(name.as_str());
                            after.is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                        })
                        .collect();
                    named.sort_by_key(|(name, _)| name.len());
                    let Some((name, field)) = named.pop() else {
                        break 'walk;
                    };
                    (node, rest) = (field, &rest[name.len()..]);
                }
                Kind::Scalar(_) => break,
            }
        }
        node.place
    }
}
