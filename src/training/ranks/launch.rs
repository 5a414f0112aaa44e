//! What started this process as one of several: torchrun, srun, mpirun, or variables set by hand.
//!
//! | variables | of |
//! |---|---|
//! | `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT` | torchrun, or whoever sets them |
//! | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID`, `SLURM_STEP_NODELIST` | srun |
//! | `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`, `_LOCAL_SIZE` | mpirun of Open MPI |
//! | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` | mpiexec of MPICH and Intel MPI |
//!
//! The first of them that are set count. `MASTER_ADDR` and `MASTER_PORT` go with each of them.
use crate::error::{Error, Report, Result};

/// One process among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its number, from 0 on.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number among those of its machine.
    pub local: usize,
    /// What started it, in words.
    pub by: &'static str,
    /// Where they meet.
    pub meeting: Meeting,
}

/// Where ranks meet: rank 0 listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The machine of rank 0.
    pub host: String,
    /// The ports that are tried, in this order.
    pub ports: Vec<u16>,
    /// What tells these processes from others that may meet there.
    pub job: String,
}

/// The port where nothing names one, as torchrun's.
const PORT: u16 = 29500;
/// Ports that are tried.
const PORTS: u16 = 8;

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The names under which a launcher tells its numbers.
struct Names {
    by: &'static str,
    rank: &'static str,
    world: &'static str,
    local: &'static str,
}

const BY_HAND: Names =
    Names { by: "the environment", rank: "RANK", world: "WORLD_SIZE", local: "LOCAL_RANK" };
const SLURM: Names = Names {
    by: "srun",
    rank: "SLURM_PROCID",
    world: "SLURM_STEP_NUM_TASKS",
    local: "SLURM_LOCALID",
};
const OPEN_MPI: Names = Names {
    by: "mpirun",
    rank: "OMPI_COMM_WORLD_RANK",
    world: "OMPI_COMM_WORLD_SIZE",
    local: "OMPI_COMM_WORLD_LOCAL_RANK",
};
const PMI: Names =
    Names { by: "mpiexec", rank: "PMI_RANK", world: "PMI_SIZE", local: "MPI_LOCALRANKID" };

/// What started this process, where `variable` tells what the environment says; none if it is alone.
///
/// # Errors
/// Exit code 2 where variables contradict each other or are missing, in words.
pub fn detect(variable: Variable<'_>) -> Result<Option<Launch>> {
    let torchrun = variable("TORCHELASTIC_RUN_ID").is_some();
    let mut found: Option<(Names, usize, usize)> = None;
    for names in [BY_HAND, OPEN_MPI, PMI, SLURM] {
        // A program for several machines that srun started: its processes are those of torchrun.
        if torchrun && names.by == SLURM.by {
            continue;
        }
        let Some((rank, world)) = numbers(&names, variable)? else { continue };
        match &found {
            None => found = Some((names, rank, world)),
            Some((first, of, count)) if *count == world && *of != rank => {
                let what = format!("{} is {of}, {} is {rank}", first.rank, names.rank);
                return Err(contradiction(&what, first, &names));
            }
            Some(_) => {}
        }
    }
    let Some((names, rank, world)) = found.filter(|(_, _, world)| *world > 1) else {
        return Ok(None);
    };
    let local = local(&names, rank, world, variable)?;
    let meeting = meeting(&names, world, torchrun, variable)?;
    let by = if torchrun { "torchrun" } else { names.by };
    Ok(Some(Launch { rank, world, local, by, meeting }))
}

/// The rank and the number of ranks by these names; none if they are not set.
fn numbers(names: &Names, variable: Variable<'_>) -> Result<Option<(usize, usize)>> {
    let (rank, world) = (number(names.rank, variable)?, number(names.world, variable)?);
    let (rank, world) = match (rank, world) {
        (Some(rank), Some(world)) => (rank, world),
        // A script of Slurm that is no step has the first without the second.
        (None, None) | (Some(_), None) if names.by == SLURM.by => return Ok(None),
        (None, None) => return Ok(None),
        (rank, _) => {
            let (set, missing) = match rank {
                Some(_) => (names.rank, names.world),
                None => (names.world, names.rank),
            };
            return match (names.world == set, world) {
                // As Kubernetes and others set it for everything.
                (true, Some(1)) => Ok(None),
                _ => Err(wrong(format!("{set} is set and {missing} is not"))),
            };
        }
    };
    if rank >= world {
        let (of, count) = (names.rank, names.world);
        return Err(wrong(format!("{of} is {rank}, which is not below {count} = {world}")));
    }
    Ok(Some((rank, world)))
}

/// The number of this process on its machine.
fn local(names: &Names, rank: usize, world: usize, variable: Variable<'_>) -> Result<usize> {
    match number(names.local, variable)? {
        Some(local) if local >= world => {
            let of = names.local;
            Err(wrong(format!("{of} is {local}, which is not below {world} processes")))
        }
        Some(local) if local > rank => {
            let cause =
                format!("{} is {local}, which is above {} = {rank}", names.local, names.rank);
            Err(wrong(cause))
        }
        Some(local) => Ok(local),
        None => Err(wrong(format!(
            "{} is not set: it says which GPU of the machine is this process's",
            names.local
        ))),
    }
}

/// Where the ranks meet.
fn meeting(names: &Names, world: usize, torchrun: bool, variable: Variable<'_>) -> Result<Meeting> {
    let job = ["TORCHELASTIC_RUN_ID", "SRK_JOB", "SLURM_JOB_ID", "PMIX_NAMESPACE", "PMI_JOBID"];
    let job = job.iter().find_map(|name| variable(name)).unwrap_or_default();
    let step = variable("SLURM_STEP_ID").unwrap_or_default();
    // Processes of a round that torchrun has ended must not meet those of the next.
    let round = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
    let host = match variable("MASTER_ADDR") {
        Some(host) => host,
        None => host(names, world, variable)?,
    };
    let first = match number("MASTER_PORT", variable)? {
        Some(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => port,
            _ => return Err(wrong(format!("MASTER_PORT is {port}, which is no port"))),
        },
        None => derived_port(variable),
    };
    // There torchrun itself listens.
    let taken = torchrun && variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
    let first = first.saturating_add(u16::from(taken));
    let ports = (first..=first.saturating_add(PORTS - 1)).collect();
    Ok(Meeting { host, ports, job: format!("{job}/{step}/{round}/{world}") })
}

/// The machine of rank 0 where `MASTER_ADDR` does not name it.
fn host(names: &Names, world: usize, variable: Variable<'_>) -> Result<String> {
    if names.by == SLURM.by {
        let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
        return nodes
            .as_deref()
            .and_then(first_node)
            .ok_or_else(|| wrong("SLURM_STEP_NODELIST names no node".to_owned()));
    }
    let here = match names.by {
        by if by == OPEN_MPI.by => number("OMPI_COMM_WORLD_LOCAL_SIZE", variable)?,
        by if by == PMI.by => number("MPI_LOCALNRANKS", variable)?,
        _ => number("LOCAL_WORLD_SIZE", variable)?,
    };
    if here == Some(world) {
        return Ok("127.0.0.1".to_owned());
    }
    let report = Report::new(
        "cannot tell where the processes meet",
        format!("{} is {world}, and MASTER_ADDR, the machine of rank 0, is not set", names.world),
    );
    let help = "MASTER_ADDR=HOST srk train ...    (mpirun -x MASTER_ADDR=HOST, srun --export=ALL,MASTER_ADDR=HOST)";
    Err(Error::Usage(report.help(help)))
}

/// A port that jobs of Slurm that share a node do not share.
fn derived_port(variable: Variable<'_>) -> u16 {
    let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<u64>().ok());
    let Some(job) = number("SLURM_JOB_ID") else { return PORT };
    let step = number("SLURM_STEP_ID").unwrap_or(0);
    let place = (job.wrapping_mul(31).wrapping_add(step)) % 2000;
    u16::try_from(12_000 + u64::from(PORTS) * place).unwrap_or(PORT)
}

/// The first node of a list of Slurm's: `gpu03` of `gpu[03-05,9],cpu1`.
fn first_node(list: &str) -> Option<String> {
    let list = list.trim();
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(inside) = rest.strip_prefix('[') else {
        return (!name.is_empty()).then(|| name.to_owned());
    };
    let number: String = inside.chars().take_while(char::is_ascii_digit).collect();
    let after = inside.split_once(']')?.1;
    let after: String = after.chars().take_while(|c| *c != ',').collect();
    (!number.is_empty()).then(|| format!("{name}{number}{after}"))
}

/// The number in `name`.
fn number(name: &str, variable: Variable<'_>) -> Result<Option<usize>> {
    match variable(name) {
        None => Ok(None),
        Some(text) => match text.trim().parse::<usize>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(wrong(format!("{name} is \"{text}\", which is no number"))),
        },
    }
}

fn wrong(cause: String) -> Error {
    let report = Report::new("cannot tell which of several processes this is", cause);
    Error::Usage(report.help("--ranks none    trains with this process alone"))
}

fn contradiction(cause: &str, first: &Names, second: &Names) -> Error {
    let what = format!("{} and {} contradict each other", first.by, second.by);
    let report = Report::new(what, cause);
    Error::Usage(
        report.help(format!("unset {} and {}, or set them alike", first.rank, first.world)),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(set: &[(&str, &str)]) -> Result<Option<Launch>> {
        detect(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn refused(set: &[(&str, &str)], words: &[&str]) {
        let error = told(set).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    }

    const TORCHRUN: [(&str, &str); 8] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29400"),
        ("TORCHELASTIC_RUN_ID", "abc"),
        ("TORCHELASTIC_RESTART_COUNT", "2"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
    ];

    #[test]
    fn torchrun_keeps_its_port_to_itself() {
        let launch = told(&TORCHRUN).unwrap().unwrap();
        assert_eq!((launch.rank, launch.world, launch.local, launch.by), (5, 8, 1, "torchrun"));
        assert_eq!(launch.meeting.host, "node1");
        assert_eq!(launch.meeting.ports[0], 29401);
        // Another round is another job.
        let mut next = TORCHRUN;
        next[6].1 = "3";
        assert_ne!(told(&next).unwrap().unwrap().meeting.job, launch.meeting.job);
    }

    #[test]
    fn srun_says_it_all_by_itself_and_a_script_of_slurm_is_alone() {
        let step = [
            ("SLURM_PROCID", "3"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_JOB_ID", "4711"),
            ("SLURM_STEP_ID", "0"),
        ];
        let launch = told(&step).unwrap().unwrap();
        assert_eq!((launch.rank, launch.world, launch.local, launch.by), (3, 4, 1, "srun"));
        assert_eq!(launch.meeting.host, "gpu07");
        // Jobs on one node do not meet.
        let mut other = step;
        other[4].1 = "4712";
        assert_ne!(told(&other).unwrap().unwrap().meeting.ports, launch.meeting.ports);
        // sbatch's own script: it has a rank, and no step.
        assert_eq!(told(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap(), None);
        // torchrun in a step with a task on each node.
        let both = [&TORCHRUN[..], &step[..]].concat();
        assert_eq!(told(&both).unwrap().unwrap().by, "torchrun");
    }

    #[test]
    fn the_first_node_of_slurms_lists() {
        for (list, first) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("gpu[07-08]", "gpu07"),
            ("gpu[3,5-9],cpu1", "gpu3"),
            ("rack[1-2].cluster", "rack1.cluster"),
        ] {
            assert_eq!(first_node(list).as_deref(), Some(first), "{list}");
        }
        for none in ["", "[", "gpu[]", "gpu["] {
            assert_eq!(first_node(none), None, "{none}");
        }
    }

    #[test]
    fn mpirun_needs_an_address_only_where_there_are_several_machines() {
        let mut mpi = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let launch = told(&mpi).unwrap().unwrap();
        assert_eq!((launch.by, launch.meeting.host.as_str()), ("mpirun", "127.0.0.1"));
        mpi[3].1 = "1";
        refused(&mpi, &["MASTER_ADDR", "mpirun -x"]);
        let pmi = [("PMI_RANK", "0"), ("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "0")];
        let named = [&pmi[..], &[("MASTER_ADDR", "here")]].concat();
        let launch = told(&named).unwrap().unwrap();
        assert_eq!((launch.by, launch.meeting.ports[0]), ("mpiexec", PORT));
    }

    #[test]
    fn alone_is_alone() {
        assert_eq!(told(&[]).unwrap(), None);
        assert_eq!(told(&[("WORLD_SIZE", "1")]).unwrap(), None);
        assert_eq!(told(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
    }

    #[test]
    fn contradictions_are_told_in_words() {
        refused(&[("RANK", "1")], &["RANK is set and WORLD_SIZE is not", "--ranks none"]);
        refused(&[("WORLD_SIZE", "2")], &["WORLD_SIZE is set and RANK is not"]);
        refused(&[("RANK", "2"), ("WORLD_SIZE", "2")], &["RANK is 2", "below WORLD_SIZE = 2"]);
        refused(&[("RANK", "one"), ("WORLD_SIZE", "2")], &["RANK is \"one\", which is no number"]);
        let two = [("RANK", "1"), ("WORLD_SIZE", "2")];
        let with = |more: &[(&'static str, &'static str)]| [&two[..], more].concat();
        refused(&with(&[]), &["LOCAL_RANK is not set"]);
        refused(&with(&[("LOCAL_RANK", "2")]), &["LOCAL_RANK is 2", "not below 2 processes"]);
        refused(&with(&[("LOCAL_RANK", "0")]), &["MASTER_ADDR"]);
        let placed = [("LOCAL_RANK", "0"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "70000")];
        refused(&with(&placed), &["MASTER_PORT is 70000"]);
        let mpi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")];
        refused(&with(&mpi), &["contradict", "RANK is 1, OMPI_COMM_WORLD_RANK is 0"]);
    }
}
