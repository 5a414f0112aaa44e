//! The part of many pictures that one of several runs takes: of an array of jobs, each without a word to the others.
use std::str::FromStr;

/// One of `count` parts. Every `count`-th picture belongs to it, counted over all pictures of the run in the order
/// of their names, done or not: so each belongs to one part whenever the runs start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, 1 to `count`.
    pub index: usize,
    /// How many parts there are.
    pub count: usize,
}

/// What was asked for: a part by its number, or the one that the environment of a job names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its number.
    This(Shard),
    /// By what Slurm and Kubernetes tell a job, of so many parts if they do not say it.
    OfJob(Option<usize>),
}

impl Shard {
    /// Whether the picture at `position`, from 0 on, belongs to it.
    pub const fn takes(self, position: usize) -> bool {
        position % self.count == (self.index + self.count - 1) % self.count
    }
}

impl FromStr for Wanted {
    type Err = String;

    /// `2/8`, `auto`, or `auto/8`. The parts are 1 to 8; the same runs numbered from 0 are the same parts, as 0 is 8.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let form = || "it is I/N, such as 2/8, or auto, or auto/8".to_owned();
        let (index, count) = match text.split_once('/') {
            Some((index, count)) => (index, Some(number(count).ok_or_else(form)?)),
            None => (text, None),
        };
        if count == Some(0) {
            return Err("there is at least 1 part".to_owned());
        }
        if index == "auto" {
            return Ok(Self::OfJob(count));
        }
        let (index, count) = (number(index).ok_or_else(form)?, count.ok_or_else(form)?);
        part(index, count).map(Self::This)
    }
}

/// The part of this number, where 0 is the last one.
fn part(index: usize, count: usize) -> Result<Shard, String> {
    match index {
        0 => Ok(Shard { index: count, count }),
        _ if index <= count => Ok(Shard { index, count }),
        _ => Err(format!("part {index} of {count} is none")),
    }
}

impl Wanted {
    /// The part, where `variable` tells what the environment says.
    ///
    /// # Errors
    /// What is missing or contradicts, in words.
    pub fn of(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
        let told = match self {
            Self::This(shard) => return Ok(shard),
            Self::OfJob(count) => count,
        };
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("{name} is \"{text}\", which is no number")),
            },
        };
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            // The variable with the count does not say how far apart tasks are.
            let count = told.or(number("SLURM_ARRAY_TASK_COUNT")?);
            return of_job("SLURM_ARRAY_TASK_ID", id, (id.saturating_sub(first)) / step, count);
        }
        if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            return of_job("JOB_COMPLETION_INDEX", index, index, told);
        }
        if let Some(rank) = number("SLURM_PROCID")? {
            return of_job("SLURM_PROCID", rank, rank, told.or(number("SLURM_NTASKS")?));
        }
        Err("neither SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX nor SLURM_PROCID is set".to_owned())
    }
}

/// The part at `place`, from 0 on, which `variable` names by `value`.
fn of_job(
    variable: &str,
    value: usize,
    place: usize,
    count: Option<usize>,
) -> Result<Shard, String> {
    let Some(count) = count else {
        return Err(format!("{variable} is {value}, and nothing says of how many"));
    };
    if place >= count {
        return Err(format!("{variable} is {value}, which is more than {count} parts"));
    }
    Ok(Shard { index: place + 1, count })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn in_job(text: &str, set: &[(&str, &str)]) -> Result<Shard, String> {
        let variable =
            |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        text.parse::<Wanted>().unwrap().of(&variable)
    }

    #[test]
    fn every_picture_belongs_to_one_part_counted_from_one_or_from_zero() {
        for first in [0, 1] {
            for count in [1, 2, 3, 7] {
                let parts: Vec<Shard> = (first..first + count)
                    .map(|index| in_job(&format!("{index}/{count}"), &[]).unwrap())
                    .collect();
                for position in 0..20 {
                    let takers = parts.iter().filter(|part| part.takes(position)).count();
                    assert_eq!(takers, 1, "picture {position} of {count} parts from {first}");
                }
            }
        }
        for wrong in ["", "2", "3/2", "1/0", "a/2", "1/b", "-1/2", "auto/0", "auto/x"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn jobs_of_clusters_say_which_part_is_theirs() {
        let array = [
            ("SLURM_ARRAY_TASK_ID", "12"),
            ("SLURM_ARRAY_TASK_MIN", "4"),
            ("SLURM_ARRAY_TASK_STEP", "4"),
            ("SLURM_ARRAY_TASK_COUNT", "5"),
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
        ];
        assert_eq!(in_job("auto", &array), Ok(Shard { index: 3, count: 5 }));
        let pod = [("JOB_COMPLETION_INDEX", "7")];
        assert_eq!(in_job("auto/8", &pod), Ok(Shard { index: 8, count: 8 }));
        assert!(in_job("auto", &pod).unwrap_err().contains("of how many"));
        assert!(in_job("auto/7", &pod).unwrap_err().contains("more than 7"));
        let task = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "3")];
        assert_eq!(in_job("auto", &task), Ok(Shard { index: 2, count: 3 }));
        assert!(in_job("auto", &[]).is_err());
        assert!(in_job("auto/2", &[("SLURM_PROCID", "x")]).unwrap_err().contains("no number"));
    }
}
