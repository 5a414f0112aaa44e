//! The text of a `.param` file: one line a layer, in the order they run.
use std::collections::{BTreeMap, BTreeSet};

/// The first line of the text format; the binary one begins with it as a number.
const MAGIC: &str = "7767517";

/// A line of the file.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    /// The kind of layer, such as `Convolution`.
    pub(super) kind: String,
    pub(super) name: String,
    /// Names of the values it reads and makes.
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// Its parameters by their keys; arrays under the key without its sign and offset.
    pub(super) values: BTreeMap<i64, Value>,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Array(Vec<f64>),
}

/// What is wrong, and in which line.
pub(super) type Parsed<T> = Result<T, String>;

/// Keys of arrays are this minus their number.
const ARRAYS: i64 = -23300;

/// Keys that lines of every kind may have: the shapes of what they make, as ncnn's tools write them for programs that plan
/// memory, and switches of its own optimisations.
const OF_ALL: [i64; 2] = [30, 31];

/// The layers of `text`.
pub(super) fn parse(text: &[u8]) -> Parsed<Vec<Line>> {
    if text.starts_with(&7_767_517_u32.to_le_bytes()) {
        return Err("it is a binary .param.bin; srk reads the text form, .param".to_owned());
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    match lines.next() {
        Some((_, first)) if first.trim() == MAGIC => {}
        _ => return Err(format!("its first line is not {MAGIC}: it is no ncnn .param")),
    }
    let counts = lines.next().map(|(_, line)| line.split_whitespace().map(str::parse::<usize>));
    let counts: Vec<usize> = counts.into_iter().flatten().flatten().collect();
    let &[layers, blobs] = counts.as_slice() else {
        return Err("line 2: it should count the layers and the blobs".to_owned());
    };
    let lines: Vec<Line> = lines.map(|(i, line)| parse_line(i + 1, line)).collect::<Parsed<_>>()?;
    if lines.len() != layers {
        return Err(format!("line 2: it promises {layers} layers; there are {}", lines.len()));
    }
    check_blobs(&lines, blobs)?;
    Ok(lines)
}

fn parse_line(number: usize, line: &str) -> Parsed<Line> {
    let wrong = |cause: &str| format!("line {number}: {cause}");
    let mut words = line.split_whitespace();
    let (Some(kind), Some(name)) = (words.next(), words.next()) else {
        return Err(wrong("a layer has a kind and a name"));
    };
    let mut count = || words.next().and_then(|word| word.parse::<usize>().ok());
    let (Some(inputs), Some(outputs)) = (count(), count()) else {
        return Err(wrong("how many values the layer reads and makes is no number"));
    };
    let mut names = |count: usize| {
        let names: Vec<String> = words.by_ref().take(count).map(str::to_owned).collect();
        match names.len() == count && names.iter().all(|name| !name.contains('=')) {
            true => Ok(names),
            false => {
                Err(wrong(&format!("{inputs} inputs and {outputs} outputs are not all there")))
            }
        }
    };
    let (inputs, outputs) = (names(inputs)?, names(outputs)?);
    let mut values = BTreeMap::new();
    for word in words {
        let (key, value) = parse_value(word)
            .ok_or_else(|| wrong(&format!("{word} is no parameter, which are like 0=64")))?;
        values.insert(key, value);
    }
    let (kind, name) = (kind.to_owned(), name.to_owned());
    Ok(Line { number, kind, name, inputs, outputs, values })
}

fn parse_value(word: &str) -> Option<(i64, Value)> {
    let (key, value) = word.split_once('=')?;
    let key: i64 = key.parse().ok()?;
    let number = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
    if key > ARRAYS {
        return Some((key, Value::Number(number(value)?)));
    }
    let mut numbers = value.split(',');
    let len: usize = numbers.next()?.parse().ok()?;
    let values = numbers.map(number).collect::<Option<Vec<f64>>>()?;
    (values.len() == len).then(|| (ARRAYS - key, Value::Array(values)))
}

/// Refuses values that are read before they are made, made twice, or more than were promised.
fn check_blobs(lines: &[Line], promised: usize) -> Parsed<()> {
    let mut made = BTreeSet::new();
    for line in lines {
        if let Some(name) = line.inputs.iter().find(|name| !made.contains(name.as_str())) {
            return Err(line.wrong(&format!("it reads {name}, which no line above makes")));
        }
        if let Some(name) = line.outputs.iter().find(|name| !made.insert(name.as_str())) {
            return Err(line.wrong(&format!("{name} is made a second time")));
        }
    }
    match made.len() <= promised {
        true => Ok(()),
        false => Err(format!("line 2: it promises {promised} blobs; there are {}", made.len())),
    }
}

impl Line {
    /// `cause`, with the number, kind and name of this line.
    pub(super) fn wrong(&self, cause: &str) -> String {
        format!("line {}: {} {}: {cause}", self.number, self.kind, self.name)
    }

    /// The number under `key`.
    pub(super) fn number(&self, key: i64, default: f64) -> Parsed<f64> {
        match self.values.get(&key) {
            None => Ok(default),
            Some(Value::Number(v)) => Ok(*v),
            Some(Value::Array(_)) => Err(self.wrong(&format!("{key} is a list, not a number"))),
        }
    }

    /// The whole number under `key`.
    pub(super) fn count(&self, key: i64, default: usize) -> Parsed<usize> {
        let v = self.number(key, default as f64)?;
        if v < 0.0 || v.fract() != 0.0 || v > f64::from(i32::MAX) {
            return Err(self.unsupported(key));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // As was just seen.
        Ok(v as usize)
    }

    /// The list under `key`; empty if there is none.
    pub(super) fn list(&self, key: i64) -> Parsed<&[f64]> {
        match self.values.get(&key) {
            None => Ok(&[]),
            Some(Value::Array(v)) => Ok(v),
            Some(Value::Number(_)) => Err(self.wrong(&format!("{key} is a number, not a list"))),
        }
    }

    /// Refuses parameters under other keys than `known` and [those of every kind](OF_ALL), unless they are 0.
    pub(super) fn only(&self, known: &[i64]) -> Parsed<()> {
        let zero = |value: &Value| *value == Value::Number(0.0);
        let is_known = |key: &i64| known.contains(key) || OF_ALL.contains(key);
        let strange = self.values.iter().find(|(key, v)| !is_known(key) && !zero(v));
        strange.map_or(Ok(()), |(&key, _)| Err(self.unsupported(key)))
    }

    /// The message that srk has no such variant of the kind.
    pub(super) fn unsupported(&self, key: i64) -> String {
        let value = match self.values.get(&key) {
            None => "absent".to_owned(),
            Some(Value::Number(v)) => v.to_string(),
            Some(Value::Array(v)) => format!("{v:?}"),
        };
        self.wrong(&format!("its parameter {key}={value} is not supported"))
    }
}
