//! What the metadata of golden files says in words: schedules, chains, formulas.
use serde_json::Value;
use srk::diffusion::schedule::{Betas, DdpmTable, EtaSchedule};

/// The numbers in a text, with the sign that stands before them; digits of names such as `y0` are none.
pub fn numbers(text: &str) -> Vec<f64> {
    let chars: Vec<char> = text.chars().collect();
    let digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let part_of_name = |i: usize| i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    let (mut found, mut i) = (vec![], 0);
    while i < chars.len() {
        if !digit(i) || part_of_name(i) {
            i += 1;
            continue;
        }
        let start = i;
        while digit(i) || (chars.get(i) == Some(&'.') && digit(i + 1)) {
            i += 1;
        }
        if matches!(chars.get(i), Some('e' | 'E')) {
            let signed = usize::from(matches!(chars.get(i + 1), Some('-' | '+')));
            if digit(i + 1 + signed) {
                i += 1 + signed;
                while digit(i) {
                    i += 1;
                }
            }
        }
        let value: f64 = chars[start..i].iter().collect::<String>().parse().unwrap_or(f64::NAN);
        let before = chars[..start].iter().rev().find(|c| !c.is_whitespace());
        found.push(if before == Some(&'-') { -value } else { value });
    }
    found
}

/// The number behind `key`, a word of its own, as in `T=30`, `kappa 2` and `eta_1: 0.01`.
pub fn field(text: &str, key: &str) -> Option<f64> {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(key).find_map(|(at, _)| {
        let rest = &text[at + key.len()..];
        let word = !text[..at].ends_with(name) && !rest.starts_with(name);
        let value = rest.trim_start_matches([' ', '=', ':']);
        let number = |c: char| c.is_ascii_digit() || c == '-' || c == '.';
        match word && value.len() < rest.len() && value.starts_with(number) {
            true => numbers(value).first().copied().filter(|v| *v >= 0.0),
            false => None,
        }
    })
}

/// A case: an object, or a sentence.
pub struct Spec<'a>(pub &'a Value);

impl Spec<'_> {
    /// All its words.
    pub fn words(&self) -> String {
        match self.0 {
            Value::String(text) => text.clone(),
            Value::Object(map) => {
                map.values().map(|v| Spec(v).words()).collect::<Vec<_>>().join("; ")
            }
            _ => String::new(),
        }
    }

    /// A number by its key, or out of the words.
    pub fn number(&self, key: &str) -> Option<f64> {
        let inner = ["schedule", "eta"].iter().find_map(|k| self.0[*k][key].as_f64());
        self.0[key].as_f64().or(inner).or_else(|| field(&self.words(), key))
    }

    /// The schedule of betas: `linear 1e-4..0.02, T=300`, `cosine T=200`, `{"kind": "jsd", "T": 40}`.
    pub fn table(&self) -> Option<DdpmTable> {
        let schedule = match &self.0["schedule"] {
            Value::Null => self.words(),
            other => Spec(other).words(),
        };
        let steps = self.number("T")?;
        let range = schedule
            .split_once("..")
            .map(|(start, end)| (numbers(start).last().copied(), numbers(end).first().copied()));
        let (start, end) = match range {
            Some((Some(start), Some(end))) => (start, end),
            // Those that everybody means who names none.
            _ => (self.number("start").unwrap_or(1e-4), self.number("end").unwrap_or(0.02)),
        };
        let offset = ["s", "offset"].iter().find_map(|key| self.number(key)).unwrap_or(0.008);
        let of = |kind: &str| schedule.split(|c: char| !c.is_alphanumeric()).any(|w| w == kind);
        let betas = match () {
            () if of("cosine") => Betas::Cosine { offset },
            () if of("quad") => Betas::Quad { start, end },
            () if of("const") => Betas::Const { end },
            () if of("warmup10") => Betas::Warmup10 { start, end },
            () if of("warmup50") => Betas::Warmup50 { start, end },
            () if of("jsd") => Betas::Jsd,
            () if of("linear") => Betas::Linear { start, end },
            () => return None,
        };
        Some(DdpmTable::new(betas.betas(steps as usize)))
    }

    /// The schedule of shifts: that of the official code where it names a least noise level, else the
    /// paper's.
    pub fn etas(&self) -> EtaSchedule {
        let power = self.number("power").unwrap_or(0.3);
        match self.number("min_noise_level") {
            Some(min_noise_level) => {
                let end = self.number("etas_end").unwrap_or(0.99);
                EtaSchedule::Official { min_noise_level, end, power }
            }
            None => {
                let first = self.number("eta_1").unwrap_or(0.008);
                let last = self.number("eta_T").unwrap_or(0.999);
                EtaSchedule::Paper { first, last, power }
            }
        }
    }

    /// What is clamped: `none`, `x0` or `xt`.
    pub fn clamp(&self) -> &'static str {
        let text = self.0["clamp"].as_str().map_or_else(|| self.words(), str::to_owned);
        match () {
            () if text.starts_with("none") => "none",
            () if text.starts_with("xt") => "xt",
            () if text.starts_with("x0") || text.contains("x0 clamped") => "x0",
            () => "none",
        }
    }

    /// The numbers of the denoiser's formula that begins behind `head` and ends at the next comma or
    /// semicolon; `usual` where the file gives none.
    pub fn formula<const N: usize>(&self, head: &str, usual: [f64; N]) -> [f64; N] {
        let text = self.0["denoiser"].as_str().unwrap_or_default();
        let Some((_, formula)) = text.split_once(head) else { return usual };
        let formula = formula.split([',', ';']).next().unwrap_or_default();
        numbers(formula).first_chunk().copied().unwrap_or(usual)
    }
}

#[test]
fn words_of_any_file_are_understood() {
    use serde_json::json;
    assert_eq!(numbers("1e-4..0.02, T=300; y0 - 0.1*x + 2E+3"), [1e-4, 0.02, 300.0, -0.1, 2000.0]);
    let kappa = |text: &str| field(text, "kappa");
    assert_eq!(
        [kappa("kappa 3"), kappa("kappa=1.5, T=4"), kappa("kappas 3")],
        [Some(3.0), Some(1.5), None]
    );
    let beta = |value: serde_json::Value| Spec(&value).table().unwrap().beta;
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    let linear = beta(json!({"schedule": "linear 2e-4..0.03, T=250"}));
    assert_eq!(linear.len(), 250);
    near(linear[0], 2e-4);
    near(linear[249], 0.03);
    let sentence = beta(json!("forward process, linear T=500"));
    assert_eq!(sentence.len(), 500);
    near(sentence[499], 0.02);
    assert_eq!(beta(json!({"schedule": "cosine T=200"})).len(), 200);
    assert_ne!(beta(json!({"schedule": "cosine T=200, s=0.02"})), beta(json!("cosine T=200")));
    assert_eq!(beta(json!({"schedule": {"kind": "jsd", "T": 30}})).len(), 30);
    near(beta(json!({"schedule": "quad 1e-4 .. 0.05, T=20"}))[19], 0.05);
    near(beta(json!({"schedule": "const 1e-4..0.05, T=20"}))[0], 0.05);
    assert_eq!(beta(json!({"schedule": "warmup10 1e-4..0.05, T=20"}))[19], 0.05);

    let etas = |value: serde_json::Value| Spec(&value).etas();
    let paper = EtaSchedule::Paper { first: 0.02, last: 0.9, power: 0.5 };
    assert_eq!(etas(json!("seed001 eta_1=0.02 eta_T=0.9 power 0.5, T=20")), paper);
    let official = EtaSchedule::Official { min_noise_level: 0.1, end: 0.98, power: 0.3 };
    assert_eq!(etas(json!({"min_noise_level": 0.1, "etas_end": 0.98})), official);

    let clamp = |value: serde_json::Value| Spec(&value).clamp();
    assert_eq!(clamp(json!({"clamp": "x0 to [-1,1]"})), "x0");
    assert_eq!(clamp(json!({"clamp": "none"})), "none");
    assert_eq!(clamp(json!({"kind": "SR3, x0 clamped to [-1,1]"})), "x0");
    assert_eq!(clamp(json!({"kind": "SR3", "clamp": "xt"})), "xt");

    let denoiser =
        json!({"denoiser": "r(x,t) = 0.4*sin(3*x + 0.1*t) - 0.2*x + 0.3*y0, t = 1-based"});
    assert_eq!(Spec(&denoiser).formula("r(x,t) =", [0.0; 5]), [0.4, 3.0, 0.1, -0.2, 0.3]);
    assert_eq!(Spec(&json!({})).formula("r(x,t) =", [1.0]), [1.0]);
}
