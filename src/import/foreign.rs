//! Functions and classes that a pickle names and srk does not know. None is ever called; users hear which they were.

/// So many are kept, and so much of each name.
const MOST: usize = 6;
const LONGEST: usize = 80;

/// What notes about them end with.
pub(super) const NOT_RUN: &str = "nothing of it was run here";

/// Modules that no weights need: with them a pickle starts programs, or reads and writes files.
const ALARMING: [&str; 20] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "runpy",
    "socket",
    "shutil",
    "webbrowser",
    "pty",
    "ctypes",
    "importlib",
    "commands",
    "platform",
    "multiprocessing",
    "asyncio",
    "urllib",
    "requests",
    "pickle",
    "pip",
];

/// The same of functions that are always there.
const ALARMING_BUILTINS: [&str; 9] =
    ["eval", "exec", "execfile", "compile", "open", "getattr", "setattr", "apply", "__import__"];

/// The beginning of a module's name or a function's, as a message may show it: a pickle may make it very long, and name
/// it very often.
pub(super) fn beginning(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(LONGEST)]);
    text.replace(|c: char| c.is_control(), "?")
}

/// Their names.
#[derive(Debug, Default)]
pub(super) struct Foreign(Vec<String>);

impl Foreign {
    /// Takes in a name, alarming ones before others.
    pub(super) fn add(&mut self, [module, name]: [String; 2]) {
        let name = format!("{module}.{name}");
        if self.0.contains(&name) {
            return;
        }
        match is_alarming(&name) {
            true => self.0.insert(0, name),
            false => self.0.push(name),
        }
        self.0.truncate(MOST);
    }

    /// What to say where no weights were found.
    pub(super) fn refused(&self) -> Option<String> {
        (!self.0.is_empty())
            .then(|| format!("it asks to call {}, which srk never does", self.0.join(", ")))
    }

    /// What to say of a file whose weights were found, but that would do harm elsewhere.
    pub(super) fn alarm(&self) -> Option<String> {
        let names: Vec<&str> =
            self.0.iter().map(String::as_str).filter(|n| is_alarming(n)).collect();
        (!names.is_empty()).then(|| {
            let names = names.join(", ");
            format!(
                "the file asks to call {names} as it is loaded; {NOT_RUN}, but torch.load would"
            )
        })
    }
}

fn is_alarming(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    match name.split_once('.') {
        Some(("builtins" | "__builtin__", function)) => ALARMING_BUILTINS.contains(&function),
        _ => ALARMING.contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_harm_is_told_from_what_is_only_unknown() {
        let mut all = Foreign::default();
        let add = |all: &mut Foreign, names: [&[u8]; 2]| all.add(names.map(beginning));
        assert!(all.refused().is_none() && all.alarm().is_none());
        for i in 0..20 {
            add(&mut all, [b"argparse", format!("Name{i}\n").as_bytes()]);
        }
        add(&mut all, [b"builtins", b"set"]);
        assert!(all.alarm().is_none());
        assert!(all.refused().unwrap().contains("argparse.Name0?"));
        add(&mut all, [b"posix", b"system"]);
        add(&mut all, [b"builtins", b"eval"]);
        let alarm = all.alarm().unwrap();
        assert!(
            alarm.contains("builtins.eval, posix.system") && !alarm.contains("argparse"),
            "{alarm}"
        );
    }
}
