//! Configurations as TOML and JSON. Whatever a text is in, its values pass through one kind of tree: what serde derives
//! for a type is compiled for each kind of reader and writer that it meets, and there are a hundred such types.
use serde::Serialize;
use serde::de::value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value as Json;
use toml::{Table, Value};

/// The `T` of `value`; what is null there is left out.
pub fn from_json<T: DeserializeOwned>(value: Json) -> Result<T, String> {
    let tree = of_json(value).unwrap_or_else(|| Value::Table(Table::new()));
    T::deserialize(Tree(tree)).map_err(|e| e.to_string())
}

/// The `T` of a JSON text.
pub fn from_json_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    from_json(serde_json::from_str(text).map_err(|e| e.to_string())?)
}

/// The `T` of a TOML table. An error ends in the key that it belongs to: `` expected u64 in `optim.warmup` ``.
pub fn from_toml<T: DeserializeOwned>(table: &Table) -> Result<T, String> {
    let read = |table: Table| T::deserialize(Tree(Value::Table(table))).map_err(|e| e.to_string());
    read(table.clone()).map_err(|cause| match guilty(table, &cause, &|table| read(table).err()) {
        Some(key) => format!("{cause} in `{key}`"),
        None => cause,
    })
}

/// The dotted key without which `read` fails with another error than `cause`, or not at all. Keys are read in order, up
/// to the error: of several, all but the last are wanted for something else.
fn guilty(table: &Table, cause: &str, read: &dyn Fn(Table) -> Option<String>) -> Option<String> {
    let mut all = Vec::new();
    keys(table, &[], &mut all);
    let without = |key: &Vec<String>| {
        let mut rest = table.clone();
        let (last, above) = key.split_last()?;
        let section = above.iter().try_fold(&mut rest, |at, part| at.get_mut(part)?.as_table_mut());
        section?.remove(last);
        let error = read(rest);
        (error.as_deref() != Some(cause)).then(|| (key.clone(), error.is_none()))
    };
    let found: Vec<(Vec<String>, bool)> = all.iter().filter_map(without).collect();
    let (last, alone) = found.last()?;
    let mut key = &last[..];
    // Of which kind a section is, is read before the rest of it.
    if let ([section @ .., kind], false) = (key, alone)
        && kind == "kind"
    {
        let others = found.iter().map(|(k, _)| &k[..]).filter(|k| *k != key);
        let inside = |k: &&[String]| k.len() > section.len() && k.starts_with(section);
        key = others.rev().find(inside).unwrap_or(section);
    }
    Some(key.join("."))
}

/// The ways to everything in `table`, a section before its keys.
fn keys(table: &Table, above: &[String], all: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        let way = [above, std::slice::from_ref(key)].concat();
        all.push(way.clone());
        if let Value::Table(inner) = value {
            keys(inner, &way, all);
        }
    }
}

/// `value` as a tree; what it cannot say is null.
pub fn to_json(value: &impl Serialize) -> Json {
    fn tree(value: &dyn erased_serde::Serialize) -> Json {
        serde_json::to_value(value).unwrap_or_default()
    }
    tree(value)
}

/// `value` as a TOML text, its keys in the order of its fields.
pub fn to_toml(value: &impl Serialize) -> Result<String, toml::ser::Error> {
    fn text(value: &dyn erased_serde::Serialize) -> Result<String, toml::ser::Error> {
        toml::to_string(value)
    }
    text(value)
}

fn of_json(value: Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(yes) => Value::Boolean(yes),
        Json::String(text) => Value::String(text),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Integer(n),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(all) => Value::Array(all.into_iter().filter_map(of_json).collect()),
        Json::Object(all) => {
            let part = |(key, value): (String, Json)| Some((key, of_json(value)?));
            Value::Table(all.into_iter().filter_map(part).collect())
        }
    })
}

/// What values are read from. A date is the text that says it.
struct Tree(Value);

impl IntoDeserializer<'_, Error> for Tree {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Tree {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(n) => visitor.visit_i64(n),
            Value::Float(v) => visitor.visit_f64(v),
            Value::Boolean(yes) => visitor.visit_bool(yes),
            Value::Datetime(date) => visitor.visit_string(date.to_string()),
            Value::Array(all) => {
                SeqDeserializer::new(all.into_iter().map(Tree)).deserialize_any(visitor)
            }
            Value::Table(table) => entries(table).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            Value::Table(table) => {
                let entries = MapAccessDeserializer::new(entries(table));
                entries.deserialize_enum(name, variants, visitor)
            }
            other => Self(other).deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

fn entries<'de>(table: Table) -> MapDeserializer<'de, impl Iterator<Item = (String, Tree)>, Error> {
    MapDeserializer::new(table.into_iter().map(|(key, value)| (key, Tree(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        name: String,
        inner: Inner,
        kind: Kind,
    }

    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    #[serde(default)]
    struct Inner {
        rates: Vec<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(tag = "kind", rename_all = "kebab-case")]
    enum Kind {
        Plain,
        Wide { channels: usize },
    }

    impl Default for Outer {
        fn default() -> Self {
            Self { name: "a".to_owned(), inner: Inner::default(), kind: Kind::Plain }
        }
    }

    fn read(text: &str) -> Result<Outer, String> {
        from_toml(&text.parse().unwrap())
    }

    #[test]
    fn what_was_written_is_read() {
        let inner = Inner { rates: vec![1.0, 0.5], count: Some(3) };
        let outer = Outer { inner, kind: Kind::Wide { channels: 7 }, ..Outer::default() };
        let text = to_toml(&outer).unwrap();
        assert_eq!(
            text,
            "name = \"a\"\n\n[inner]\nrates = [1.0, 0.5]\ncount = 3\n\n[kind]\nkind = \"wide\"\nchannels = 7\n"
        );
        assert_eq!(read(&text).unwrap(), outer);
        assert_eq!(from_json(to_json(&outer)), Ok(outer));
    }

    #[test]
    fn numbers_may_be_infinite() {
        assert_eq!(read("inner.rates = [inf, -0.0]").unwrap().inner.rates[0], f64::INFINITY);
        let json = serde_json::json!({"name": "b", "inner": {"count": null, "rates": [2]}});
        let inner = Inner { rates: vec![2.0], count: None };
        let expected = Outer { name: "b".to_owned(), inner, ..Outer::default() };
        assert_eq!(from_json(json), Ok(expected));
    }

    #[test]
    fn errors_name_the_key() {
        let cases = [
            (
                "inner.rates = [1, \"x\"]",
                "invalid type: string \"x\", expected f64 in `inner.rates`",
            ),
            ("inner.count = -1", "invalid value: integer `-1`, expected u64 in `inner.count`"),
            (
                "inner.count = nan",
                "invalid type: floating point `NaN`, expected u64 in `inner.count`",
            ),
            (
                "kind.kind = \"narrow\"",
                "unknown variant `narrow`, expected `plain` or `wide` in `kind`",
            ),
            ("kind = { kind = \"wide\" }", "missing field `channels` in `kind`"),
            (
                "kind = { kind = \"wide\", channels = \"7\" }",
                "invalid type: string \"7\", expected usize in `kind.channels`",
            ),
            ("nam = 1", "unknown field `nam`, expected one of `name`, `inner`, `kind` in `nam`"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
    }
}
