//! How ranks meet: rank 0 listens, the others call until a time limit.
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::group::Ranks;
use super::launch::{Launch, Meeting};
use super::wire::{self, Kind, MAGIC, SHORT};
use crate::engine::interrupt;
use crate::error::{Error, Report, Result};
use crate::training::log::short;

/// How long a call may take that is answered at all.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Who calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hello {
    srk: String,
    job: String,
    rank: usize,
    world: usize,
    name: String,
}

/// Meets the other ranks of `launch`, within `limit`, which is also how long one waits for another later.
///
/// # Errors
/// Exit code 1 if some do not come, with their numbers; 2 if they are of different versions, or two have one number.
pub fn meet(launch: &Launch, limit: Duration) -> Result<Ranks> {
    let hello = Hello {
        srk: env!("CARGO_PKG_VERSION").to_owned(),
        job: launch.meeting.job.clone(),
        rank: launch.rank,
        world: launch.world,
        name: format!("rank {} ({}, process {})", launch.rank, machine(), std::process::id()),
    };
    match launch.rank {
        0 => receive(&hello, &launch.meeting, limit),
        _ => call(&hello, &launch.meeting, limit),
    }
}

/// What this machine calls itself.
fn machine() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "this machine".to_owned(),
        name => name.to_owned(),
    }
}

/// Rank 0: waits for the others.
fn receive(hello: &Hello, at: &Meeting, limit: Duration) -> Result<Ranks> {
    let listener = listen(at)?;
    let until = Instant::now() + limit;
    let mut others: Vec<Option<(TcpStream, String)>> = (1..hello.world).map(|_| None).collect();
    while others.iter().any(Option::is_none) {
        interrupt::check()?;
        match listener.accept() {
            Ok((line, _)) => {
                // Whoever else it was: no rank of this job.
                let Ok(Some((line, caller))) = answer(hello, line, limit) else { continue };
                if let Err(error) = admit(hello, &mut others, line, caller) {
                    tell_all(&mut others, &error);
                    return Err(error);
                }
            }
            Err(_) if Instant::now() > until => {
                let error = missing(&others, at, limit);
                tell_all(&mut others, &error);
                return Err(error);
            }
            Err(_) => sleep(PAUSE),
        }
    }
    let (mut lines, mut names) = (Vec::new(), vec![hello.name.clone()]);
    for (line, name) in others.into_iter().flatten() {
        lines.push(line);
        names.push(name);
    }
    let text = json!(names).to_string();
    // One that is gone already is missed at the first word.
    lines.iter_mut().for_each(|line| drop(wire::send(line, Kind::Start, text.as_bytes())));
    Ok(Ranks::new(0, names, lines, limit))
}

/// Listens on the first of the ports that is free: on this machine alone where all ranks are on it.
fn listen(at: &Meeting) -> Result<TcpListener> {
    let loopback = addresses(at, 0).iter().any(|address| address.ip().is_loopback());
    let places: &[IpAddr] = match loopback {
        true => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        false => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let mut cause = "there is none".to_owned();
    for &port in &at.ports {
        for &place in places {
            let listener = TcpListener::bind((place, port));
            match listener.and_then(|l| l.set_nonblocking(true).map(|()| l)) {
                Ok(listener) => return Ok(listener),
                Err(e) => cause = e.to_string(),
            }
        }
    }
    let what = format!("cannot listen for the other processes on the ports {}", ports(at));
    Err(Error::Failed(
        Report::new(what, cause).help("MASTER_PORT=PORT srk train ...    names another"),
    ))
}

fn ports(at: &Meeting) -> String {
    match &at.ports[..] {
        [first, .., last] => format!("{first} to {last}"),
        all => all.iter().map(ToString::to_string).collect(),
    }
}

/// Hears who calls, and takes or refuses the call.
fn answer(
    hello: &Hello,
    mut line: TcpStream,
    limit: Duration,
) -> io::Result<Option<(TcpStream, Hello)>> {
    line.set_nonblocking(false)?;
    prepare(&line, limit)?;
    let mut magic = [0; 8];
    line.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Ok(None);
    }
    let (Kind::Hello, body) = wire::receive(&mut line, SHORT)? else { return Ok(None) };
    let caller: Hello = serde_json::from_slice(&body)?;
    if caller.job != hello.job {
        wire::send(&mut line, Kind::Elsewhere, &[])?;
        return Ok(None);
    }
    wire::send(&mut line, Kind::Welcome, hello.name.as_bytes())?;
    Ok(Some((line, caller)))
}

fn prepare(line: &TcpStream, limit: Duration) -> io::Result<()> {
    line.set_nodelay(true)?;
    line.set_read_timeout(Some(ANSWER))?;
    line.set_write_timeout(Some(limit.max(ANSWER)))
}

/// Takes `caller` in as the rank that it says it is.
fn admit(
    hello: &Hello,
    others: &mut [Option<(TcpStream, String)>],
    mut line: TcpStream,
    caller: Hello,
) -> Result<()> {
    let (name, what) = (&caller.name, "the processes do not fit together");
    let place = caller.rank.checked_sub(1).and_then(|i| others.get_mut(i));
    let cause = match &place {
        _ if caller.srk != hello.srk => {
            format!("{name} is srk {}, {} is srk {}", caller.srk, hello.name, hello.srk)
        }
        Some(Some((_, first))) => format!("{first} and {name} have the same number"),
        Some(None) if caller.world == hello.world => {
            if let Some(place) = place {
                *place = Some((line, caller.name));
            }
            return Ok(());
        }
        _ => format!(
            "{name} counts {} processes, {} counts {}",
            caller.world, hello.name, hello.world
        ),
    };
    let error = Error::Usage(Report::new(what, cause).help("start all of them with one command"));
    let _ = wire::send(&mut line, Kind::Fault, fault(&error).as_bytes());
    Err(error)
}

fn fault(error: &Error) -> String {
    let report = error.report();
    json!({"what": report.map_or("", |r| &r.what), "cause": report.map_or("", |r| &r.cause)})
        .to_string()
}

fn tell_all(others: &mut [Option<(TcpStream, String)>], error: &Error) {
    for (line, _) in others.iter_mut().flatten() {
        let _ = wire::send(line, Kind::Fault, fault(error).as_bytes());
    }
}

fn missing(others: &[Option<(TcpStream, String)>], at: &Meeting, limit: Duration) -> Error {
    let missing = others.iter().enumerate().filter(|(_, other)| other.is_none());
    let missing: Vec<String> = missing.map(|(i, _)| (i + 1).to_string()).collect();
    let word = if missing.len() == 1 { "rank" } else { "ranks" };
    let what = format!("{word} {} of {} did not come", missing.join(", "), others.len() + 1);
    let cause = format!("rank 0 waited {} on the ports {}", short(limit), ports(at));
    let help = "start all of them; MASTER_ADDR and MASTER_PORT must lead to the machine of rank 0";
    Error::Failed(Report::new(what, cause).code("rank_lost").help(help))
}

/// Another rank: calls rank 0 until it answers.
fn call(hello: &Hello, at: &Meeting, limit: Duration) -> Result<Ranks> {
    let until = Instant::now() + limit;
    let mut cause = "nobody answers".to_owned();
    loop {
        for &port in &at.ports {
            for address in addresses(at, port) {
                interrupt::check()?;
                match try_call(hello, address, limit) {
                    Ok(Some((line, first))) => return wait(hello, line, first, (until, limit)),
                    Ok(None) => cause = format!("another job meets at {address}"),
                    Err(e) => cause = format!("{address}: {e}"),
                }
            }
        }
        if Instant::now() > until {
            let what = format!("rank {} found no rank 0 at {}", hello.rank, at.host);
            let cause = format!("tried for {} on the ports {}: {cause}", short(limit), ports(at));
            let help =
                "start all of them; MASTER_ADDR and MASTER_PORT must lead to the machine of rank 0";
            return Err(Error::Failed(Report::new(what, cause).code("rank_lost").help(help)));
        }
        sleep(PAUSE);
    }
}

fn addresses(at: &Meeting, port: u16) -> Vec<SocketAddr> {
    (at.host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

/// Calls `address`: the connection to rank 0 and its name; none where another job meets.
fn try_call(
    hello: &Hello,
    address: SocketAddr,
    limit: Duration,
) -> io::Result<Option<(TcpStream, String)>> {
    let mut line = TcpStream::connect_timeout(&address, ANSWER)?;
    prepare(&line, limit)?;
    line.write_all(MAGIC)?;
    wire::send(&mut line, Kind::Hello, json!(hello).to_string().as_bytes())?;
    match wire::receive(&mut line, SHORT)? {
        (Kind::Welcome, name) => Ok(Some((line, String::from_utf8_lossy(&name).into_owned()))),
        (Kind::Elsewhere, _) => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it answers what srk does not")),
    }
}

/// Waits until all are there.
fn wait(
    hello: &Hello,
    mut line: TcpStream,
    first: String,
    (until, limit): (Instant, Duration),
) -> Result<Ranks> {
    let left = until.saturating_duration_since(Instant::now()) + ANSWER;
    let heard = line.set_read_timeout(Some(left)).and_then(|()| wire::receive(&mut line, 1 << 24));
    let (what, cause) = match heard {
        Ok((Kind::Start, names)) => match serde_json::from_slice::<Vec<String>>(&names) {
            Ok(names) if names.len() == hello.world => {
                return Ok(Ranks::new(hello.rank, names, vec![line], limit));
            }
            _ => (format!("{first} is no rank 0"), "what it sends cannot be understood".to_owned()),
        },
        Ok((Kind::Fault, text)) => {
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            (word("what"), word("cause"))
        }
        Ok(_) => (format!("{first} is no rank 0"), "it sends what srk does not".to_owned()),
        Err(e) => (format!("{first} is gone before all have met"), e.to_string()),
    };
    let help = "start all of them again, with one command";
    Err(Error::Failed(Report::new(what, cause).code("rank_lost").help(help)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::training::ranks::{Fact, agree};

    /// A port that is free, and those behind it.
    fn place(job: &str) -> Meeting {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let ports = (port..port.saturating_add(4)).collect();
        Meeting { host: "127.0.0.1".into(), ports, job: job.into() }
    }

    fn launch(rank: usize, world: usize, meeting: &Meeting) -> Launch {
        Launch { rank, world, local: rank, by: "a test", meeting: meeting.clone() }
    }

    /// What each of `world` ranks, a thread each, makes of `body`.
    fn each<R: Send + 'static>(
        world: usize,
        limit: Duration,
        body: impl Fn(Ranks) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let at = place("one");
        let threads: Vec<_> = (0..world)
            .map(|rank| {
                let (launch, body) = (launch(rank, world, &at), body.clone());
                std::thread::spawn(move || body(meet(&launch, limit).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn ranks_that_have_met_hear_each_other_in_their_order() {
        let all = each(3, LONG, |ranks| {
            let mine = u8::try_from(ranks.rank()).unwrap();
            let heard = ranks.exchange(vec![mine; 70_000 * ranks.rank()]).unwrap();
            let largest = ranks.largest([u64::from(mine), 9 - u64::from(mine)]).unwrap();
            let told = ranks.spread(ranks.is_first().then(|| b"first".to_vec())).unwrap();
            (heard.iter().map(Vec::len).collect::<Vec<_>>(), largest, told)
        });
        assert!(
            all.iter().all(|got| *got == (vec![0, 70_000, 140_000], [2, 9], b"first".to_vec()))
        );
    }

    #[test]
    fn one_that_fails_ends_all_with_its_name_and_its_words() {
        let all = each(3, LONG, |ranks| {
            if ranks.rank() == 2 {
                ranks.fail(&Error::Failed(Report::new("cannot read a.png", "it is gone")));
                return String::new();
            }
            ranks.largest([1]).unwrap_err().to_string()
        });
        for said in &all[..2] {
            assert!(
                said.contains("rank 2 (") && said.contains("ended: cannot read a.png"),
                "{said}"
            );
        }
    }

    #[test]
    fn one_that_is_silent_or_leaves_early_is_named_with_its_step() {
        let all = each(2, Duration::from_millis(300), |ranks| {
            ranks.at_step(1234);
            if ranks.rank() == 1 {
                std::thread::sleep(Duration::from_millis(1500));
                return String::new();
            }
            ranks.largest([1]).unwrap_err().to_string()
        });
        assert!(all[0].contains("rank 1 (") && all[0].contains("hangs"), "{}", all[0]);
        assert!(all[0].contains("its last step is 1 234"), "{}", all[0]);
        // Of three, both others name the one that is silent, and not each other.
        let all = each(3, Duration::from_millis(300), |ranks| {
            if ranks.rank() == 2 {
                std::thread::sleep(Duration::from_millis(1500));
                return String::new();
            }
            ranks.largest([1]).unwrap_err().to_string()
        });
        assert!(all[..2].iter().all(|said| said.contains("rank 2 (")), "{all:?}");
        let all = each(2, LONG, |ranks| match ranks.rank() {
            1 => String::new(),
            _ => ranks.largest([1]).unwrap_err().to_string(),
        });
        assert!(all[0].contains("rank 1 (") && all[0].contains("before the others"), "{}", all[0]);
    }

    #[test]
    fn other_jobs_and_other_programs_on_the_ports_are_passed_over() {
        let at = place("one");
        let other = Meeting { job: "two".into(), ..at.clone() };
        // The other job listens on the first port; a program that is no rank calls, and says nothing of use.
        let first = launch(0, 2, &other);
        let waiting = std::thread::spawn(move || meet(&first, Duration::from_secs(3)).is_err());
        std::thread::sleep(Duration::from_millis(300));
        let mut stranger = TcpStream::connect(("127.0.0.1", at.ports[0])).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let ranks: Vec<_> = (0..2)
            .map(|rank| {
                let launch = launch(rank, 2, &at);
                std::thread::spawn(move || meet(&launch, LONG).unwrap().largest([7]).unwrap())
            })
            .collect();
        assert!(ranks.into_iter().all(|rank| rank.join().unwrap() == [7]));
        assert!(waiting.join().unwrap(), "the other job has met ranks of this one");
    }

    #[test]
    fn what_ranks_do_not_agree_on_is_told_by_all() {
        let all = each(2, LONG, |ranks| {
            let is = |what: &str| format!("seed = 1\nlr = {what}");
            let mine = if ranks.is_first() { is("0.1") } else { is("0.2") };
            let facts = [("device", "cpu".to_owned()), ("configuration", mine)]
                .map(|(of, is)| Fact { of, is, help: "start them alike" });
            agree(&ranks, &facts[..1]).unwrap();
            agree(&ranks, &facts).unwrap_err().to_string()
        });
        for said in all {
            assert!(said.contains("do not agree on the configuration"), "{said}");
            assert!(said.contains("lr = 0.1; rank 1 (") && said.contains("lr = 0.2"), "{said}");
        }
    }

    #[test]
    fn two_of_one_number_are_refused() {
        let at = place("one");
        let threads: Vec<_> = [0, 1, 1]
            .map(|rank| {
                let launch = launch(rank, 3, &at);
                std::thread::spawn(move || meet(&launch, LONG).err().map(|e| e.to_string()))
            })
            .into();
        let all: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(all.iter().all(Option::is_some), "{all:?}");
        assert!(all[0].as_deref().unwrap().contains("have the same number"), "{all:?}");
    }
}
