//! The page and the schema of all keys are those of the source, whose defaults are those that serde fills in.
#![allow(clippy::unwrap_used)]
mod json;
mod pages;
mod reader;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use srk::training::config::{Config, SCHEMA};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_page_and_the_schema_are_those_of_the_source() {
    let source = reader::Source::read(&at("src"));
    for (path, made) in [
        ("docs/configuration.md", pages::page(&source)),
        ("src/training/configuration.schema.json", pages::schema(&source)),
    ] {
        if std::env::var_os("SRK_WRITE").is_some() {
            fs::write(at(path), &made).unwrap();
            continue;
        }
        let held = fs::read_to_string(at(path)).unwrap_or_default();
        let first = held.lines().zip(made.lines()).find(|(a, b)| a != b);
        assert!(
            held == made,
            "{path} is not that of the source (first: {first:?}); \
             SRK_WRITE=1 cargo test --release --test cli configuration::    makes it anew"
        );
    }
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// What is wrong with `value` under `schema`, of which the parts that ours uses are known.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(place) = schema["$ref"].as_str() {
        let name = place.rsplit('/').next().unwrap();
        all.extend(faults(root, &root["$defs"][name], value, at));
    }
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        all.push(format!("{at} is not {wanted}"));
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|v| v.fract() == 0.0),
        other => other.is_none(),
    };
    if !fits {
        all.push(format!("{at} is {value}, no {}", schema["type"]));
    }
    if let Some(least) = schema["minimum"].as_f64()
        && value.as_f64().is_some_and(|v| v < least)
    {
        all.push(format!("{at} is below {least}"));
    }
    if let Some(entries) = value.as_object() {
        let needed = schema["required"].as_array().into_iter().flatten();
        let lacking = needed.filter(|key| !entries.contains_key(key.as_str().unwrap()));
        all.extend(lacking.map(|key| format!("{at} lacks {key}")));
        for (key, inner) in entries {
            let place = format!("{at}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => all.push(format!("{place} is unknown")),
                (Value::Null, Value::Object(_)) => {
                    all.extend(faults(root, &schema["additionalProperties"], inner, &place));
                }
                (Value::Null, _) => {}
                (known, _) => all.extend(faults(root, known, inner, &place)),
            }
        }
    }
    if let Some(items) = value.as_array() {
        let count = items.len() as u64;
        let (least, most) = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
        if least.is_some_and(|n| count < n) || most.is_some_and(|n| count > n) {
            all.push(format!("{at} has {count} entries"));
        }
        if schema.get("items").is_some() {
            all.extend(items.iter().flat_map(|item| faults(root, &schema["items"], item, at)));
        }
    }
    for (word, only) in [("anyOf", false), ("oneOf", true)] {
        let Some(choices) = schema[word].as_array() else { continue };
        let of = |choice: &Value| faults(root, choice, value, at);
        let fitting = choices.iter().filter(|choice| of(choice).is_empty()).count();
        if fitting == 0 || (only && fitting > 1) {
            all.push(format!("{at} fits {fitting} of {} choices", choices.len()));
        }
    }
    all
}

fn to_json(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn recipes_fit_the_schema_and_slips_of_the_pen_do_not() {
    let schema = schema();
    let recipes = fs::read_dir(at("recipes")).unwrap().map(|e| e.unwrap().path());
    let mut count = 0;
    for path in recipes.filter(|p| p.extension().is_some_and(|e| e == "toml")) {
        let text = fs::read_to_string(&path).unwrap();
        let found = faults(&schema, &schema, &to_json(&text), "");
        assert!(found.is_empty(), "{}: {found:?}", path.display());
        // With all defaults, too.
        if let Ok(config) = Config::read(&text, "recipe", &[]) {
            let found = faults(&schema, &schema, &to_json(&config.to_toml()), "");
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
        count += 1;
    }
    assert!(count > 10, "{count} recipes");
    let text = fs::read_to_string(at("recipes/srk-x4.toml")).unwrap();
    let good = to_json(&text);
    for (section, key, value) in [
        ("optim", "rl", Value::from(1)),
        ("optim", "lr", "fast".into()),
        ("loss", "kind", "l3".into()),
        ("run", "steps", Value::from(-1)),
        ("ckpt", "best", Value::Bool(true)),
        ("model", "kind", "resnet".into()),
    ] {
        let mut bad = good.clone();
        bad[section][key] = value;
        assert!(!faults(&schema, &schema, &bad, "").is_empty(), "{section}.{key}");
    }
    for (key, value) in [("best", Value::Bool(false)), ("best", "psnr_y".into())] {
        let mut fine = good.clone();
        fine["ckpt"][key] = value;
        assert_eq!(faults(&schema, &schema, &fine, ""), Vec::<String>::new());
    }
}

/// The defaults that the schema tells of the definition that ends with `name`.
fn told(schema: &Value, name: &str) -> Vec<(String, Value)> {
    let definitions = schema["$defs"].as_object().unwrap();
    let (_, found) = definitions.iter().find(|(key, _)| key.ends_with(name)).unwrap();
    let properties = found["properties"].as_object().unwrap();
    properties.iter().filter_map(|(k, v)| Some((k.clone(), v.get("default")?.clone()))).collect()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64(), a.as_array(), b.as_array()) {
        (Some(a), Some(b), ..) => a.to_bits() == b.to_bits(),
        (_, _, Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

#[test]
fn defaults_are_those_that_serde_fills_in() {
    let schema = schema();
    let text = "run = { name = \"a\", steps = 1 }\nmodel = { kind = \"attentive-grid\" }\n\
                diffusion = { process = { kind = \"direct\" }, prediction = \"x0\" }\n\
                data = { train = { paths = [\"a\"], crop = 64, batch = 1 } }\n";
    let filled = to_json(&Config::read(text, "a", &[]).unwrap().to_toml());
    for (name, section) in [
        ("sections.OptimConfig", &filled["optim"]),
        ("sections.LossConfig", &filled["loss"]),
        ("sections.EmaConfig", &filled["ema"]),
        ("sections.ValConfig", &filled["val"]),
        ("sections.CkptConfig", &filled["ckpt"]),
        ("sections.LogConfig", &filled["log"]),
        ("sections.TrainData", &filled["data"]["train"]),
        ("sections.ValData", &filled["data"]["val"]),
    ] {
        let told = told(&schema, name);
        assert!(!told.is_empty(), "{name}");
        for (key, value) in told {
            // What is left out when it is empty is not written.
            if let Some(real) = section.get(&key) {
                assert!(same(&value, real), "{name}.{key}: {value}, serde says {real}");
            }
        }
    }
    // Every network by its kind alone.
    let models = schema["$defs"]["models.ModelConfig"]["oneOf"].as_array().unwrap();
    for model in models {
        let properties = model["properties"].as_object().unwrap();
        let kind = &properties["kind"]["const"];
        if kind == "ncnn-graph" {
            continue;
        }
        let config: srk::models::ModelConfig =
            serde_json::from_value(serde_json::json!({"kind": kind})).unwrap();
        let real = serde_json::to_value(&config).unwrap();
        for (key, property) in properties.iter().filter(|(key, _)| *key != "kind") {
            match property.get("default") {
                Some(told) => assert!(same(told, &real[key]), "{kind}.{key}: {told}, {real}"),
                None => assert!(real.get(key).is_none_or(Value::is_null), "{kind}.{key}: {real}"),
            }
        }
    }
}

#[test]
fn srk_prints_the_schema() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_srk")).args(["train", "--schema"]).output().unwrap();
    assert!(output.status.success());
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, schema());
    assert_eq!(printed["$schema"], "https://json-schema.org/draft/2020-12/schema");
}
