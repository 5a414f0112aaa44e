//! Reading a configuration: a recipe or a file, then `--set`, then every check that needs no image.
use toml::{Table, Value};

pub use super::sections::*;
use crate::error::{Error, Report, Result};

impl Config {
    /// Reads `text`, called `name` in messages, with every `a.b=v` of `overrides` applied to it.
    ///
    /// Unknown keys are refused with the nearest known one; wrong types and impossible values with
    /// the key they belong to. All are exit code 2.
    pub fn read(text: &str, name: &str, overrides: &[String]) -> Result<Self> {
        let wrong = |cause: String| Error::Usage(Report::new(format!("cannot read {name}"), cause));
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(e.to_string().trim_end().to_owned()))?;
        // Types of existing keys decide how an override is read: 12 may be a name.
        let known = Self::resolve(&table).ok().map(|c| c.to_table());
        for setting in overrides {
            set(&mut table, known.as_ref(), setting)?;
        }
        let config = Self::resolve(&table).map_err(wrong)?;
        refuse_unknown(&table, &config.to_table(), name)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration of `table`, or what is wrong with which key.
    fn resolve(table: &Table) -> std::result::Result<Self, String> {
        Value::Table(table.clone()).try_into().map_err(|e: toml::de::Error| {
            let text = e.to_string();
            text.trim_end().replace('\n', " ")
        })
    }

    /// The configuration with every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|e| format!("# {e}\n"))
    }

    fn to_table(&self) -> Table {
        self.to_toml().parse().unwrap_or_default()
    }

    /// The dotted keys in which `self` and `other` differ, with both values, leaving out what does
    /// not change the weights: `log`, `ckpt`, `val` and `data.val`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (a, b) = (flat(&self.to_table()), flat(&other.to_table()));
        let free = |key: &str| {
            ["log.", "ckpt.", "val.", "data.val."].iter().any(|prefix| key.starts_with(prefix))
        };
        let find = |list: &[(String, Value)], key: &str| {
            list.iter().find(|(k, _)| k == key).map_or("absent".to_owned(), |(_, v)| v.to_string())
        };
        let mut keys: Vec<&String> = a.iter().chain(&b).map(|(k, _)| k).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .filter(|key| !free(key))
            .map(|key| (key, find(&a, key), find(&b, key)))
            .filter(|(_, old, new)| old != new)
            .map(|(key, old, new)| format!("{key} = {old}, now {new}"))
            .collect()
    }

    /// Refuses values that no run can have.
    fn check(&self) -> Result<()> {
        self.diffusion.check()?;
        let scale = self.model.scale();
        let crop = self.data.train.crop;
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let unit = |v: f64| (0.0..1.0).contains(&v);
        let o = &self.optim;
        let name = &self.run.name;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        let wrong = |cause: String| Error::Usage(Report::new("wrong configuration", cause));
        self.data.train.augment.check().map_err(wrong)?;
        let rules = [
            (plain, "run.name must be the name of one folder".to_owned()),
            (self.run.steps > 0, "run.steps must be at least 1".to_owned()),
            (
                crop > 0 && crop.is_multiple_of(scale),
                format!("data.train.crop = {crop} must be a multiple of the scale {scale}"),
            ),
            (self.data.train.batch > 0, "data.train.batch must be at least 1".to_owned()),
            (positive(o.lr), format!("optim.lr = {} must be above 0", o.lr)),
            (o.min_lr >= 0.0 && o.min_lr <= o.lr, "optim.min_lr must lie in 0..=lr".to_owned()),
            (o.betas.iter().all(|&b| unit(b)), "optim.betas must lie in 0..1".to_owned()),
            (positive(o.eps), "optim.eps must be above 0".to_owned()),
            (o.weight_decay >= 0.0, "optim.weight_decay must not be negative".to_owned()),
            (o.clip >= 0.0, "optim.clip must not be negative".to_owned()),
            (o.accumulate > 0, "optim.accumulate must be at least 1".to_owned()),
            (unit(self.ema.decay), "ema.decay must lie in 0..1".to_owned()),
            (positive(o.fall_by) && o.fall_by <= 1.0, "optim.fall_by must lie in 0..=1".to_owned()),
            (self.loss.dct >= 0.0, "loss.dct must not be negative".to_owned()),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, cause)) => Err(Error::Usage(Report::new("wrong configuration", cause))),
            None => Ok(()),
        }
    }
}

/// Applies `a.b=v`. `known` is the resolved configuration before it, if it resolves.
fn set(table: &mut Table, known: Option<&Table>, setting: &str) -> Result<()> {
    let wrong = |cause: String| {
        let report = Report::new(format!("cannot apply --set {setting}"), cause);
        Err(Error::Usage(report.help("--set optim.lr=2e-4    is the form")))
    };
    let Some((key, text)) = setting.split_once('=') else {
        return wrong("there is no =".into());
    };
    let (key, text) = (key.trim(), text.trim());
    let path: Vec<&str> = key.split('.').collect();
    if path.iter().any(|part| part.is_empty()) {
        return wrong(format!("{key:?} is not a dotted key"));
    }
    let old = known.and_then(|t| find(t, &path));
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = match (old, parsed) {
        (Some(Value::String(_)), Some(Value::String(v))) => Value::String(v),
        (Some(Value::String(_)), _) | (_, None) => Value::String(text.to_owned()),
        (_, Some(value)) => value,
    };
    if let Some(old) = old.filter(|old| !same_type(old, &value)) {
        return wrong(format!("{key} is {}, not {}", kind(old), kind(&value)));
    }
    let mut at = table;
    for part in &path[..path.len() - 1] {
        let next = at.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        // A switch that is on may become a section whose keys are on.
        if *next == Value::Boolean(true) {
            *next = Value::Table(Table::new());
        }
        match next {
            Value::Table(inner) => at = inner,
            other => return wrong(format!("{part} is {}, not a section", kind(other))),
        }
    }
    at.insert(path[path.len() - 1].to_owned(), value);
    Ok(())
}

fn find<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    match (table.get(*first)?, rest) {
        (value, []) => Some(value),
        (Value::Table(inner), rest) => find(inner, rest),
        _ => None,
    }
}

/// Whether `new` may stand for `old`: whole numbers and fractions are judged by the section itself.
fn same_type(old: &Value, new: &Value) -> bool {
    let number = |v: &Value| matches!(v, Value::Integer(_) | Value::Float(_));
    // A switch may become a section, and back.
    let switch = |v: &Value| matches!(v, Value::Boolean(_) | Value::Table(_));
    old.same_type(new) || (number(old) && number(new)) || (switch(old) && switch(new))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

/// Every leaf under its dotted key, sorted.
fn flat(table: &Table) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => all.extend(
                flat(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)),
            ),
            value => all.push((key.clone(), value.clone())),
        }
    }
    all
}

/// Refuses keys of `given` that `resolved`, the same configuration written out in full, lacks.
fn refuse_unknown(given: &Table, resolved: &Table, name: &str) -> Result<()> {
    let known: Vec<String> = flat(resolved).into_iter().map(|(key, _)| key).collect();
    for (key, _) in flat(given) {
        if known.contains(&key) {
            continue;
        }
        let distance = |a: &str| strsim::damerau_levenshtein(a, &key);
        let nearest =
            known.iter().min_by_key(|k| distance(k)).filter(|k| distance(k) <= key.len() / 3);
        let report = Report::new(format!("cannot read {name}"), format!("unknown key {key}"));
        let help = nearest.map_or_else(String::new, |k| format!("did you mean {k}?"));
        return Err(Error::Usage(report.help(help)));
    }
    Ok(())
}
