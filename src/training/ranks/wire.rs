//! Messages between ranks: a byte that says of which kind, the length as eight bytes (little endian), the body.
use std::io::{self, Read, Write};

/// What a connection begins with, so that another program that listens there is known at once.
pub(super) const MAGIC: &[u8; 8] = b"srkrank1";
/// Bytes of a message before it is known who sends it.
pub(super) const SHORT: u64 = 1 << 16;
/// Bytes of any message.
pub(super) const LONG: u64 = 1 << 40;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who calls, as JSON.
    Hello = 1,
    /// The call is taken.
    Welcome = 2,
    /// Other processes meet here.
    Elsewhere = 3,
    /// All are there: their names, as JSON.
    Start = 4,
    /// What ranks work with.
    Data = 5,
    /// Why all end, as JSON.
    Fault = 6,
    /// The end of a rank that did what it was to do.
    Bye = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Hello,
            Self::Welcome,
            Self::Elsewhere,
            Self::Start,
            Self::Data,
            Self::Fault,
            Self::Bye,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Sends a message.
pub(super) fn send(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    let mut head = [0; 9];
    head[0] = kind as u8;
    head[1..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    if body.len() < 1 << 12 {
        // In one packet.
        return to.write_all(&[&head[..], body].concat());
    }
    to.write_all(&head)?;
    to.write_all(body)
}

/// Waits for a message of at most `most` bytes.
pub(super) fn receive(from: &mut impl Read, most: u64) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let mut length = [0; 8];
    length.copy_from_slice(&head[1..]);
    let length = u64::from_le_bytes(length);
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "it sends what srk does not");
    let kind = Kind::of(head[0]).filter(|_| length <= most).ok_or_else(foreign)?;
    // Memory is taken as bytes come, whatever the length says.
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    match body.len() as u64 == length {
        true => Ok((kind, body)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Texts of bytes in one, each with its length before it.
pub(super) fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        all.extend((part.len() as u64).to_le_bytes());
        all.extend(part);
    }
    all
}

/// What [`joined`] made one; none if it is not of that form.
pub(super) fn split(mut all: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !all.is_empty() {
        let (length, rest) = all.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        parts.push(part.to_vec());
        all = rest;
    }
    Some(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_were_sent_and_others_are_refused() {
        let mut line = Vec::new();
        send(&mut line, Kind::Data, &[7; 5000]).unwrap();
        send(&mut line, Kind::Bye, &[]).unwrap();
        let mut from = &line[..];
        assert_eq!(receive(&mut from, LONG).unwrap(), (Kind::Data, vec![7; 5000]));
        assert_eq!(receive(&mut from, LONG).unwrap(), (Kind::Bye, vec![]));
        assert!(receive(&mut from, LONG).is_err());
        assert!(receive(&mut &line[..], 4999).is_err());
        assert!(receive(&mut &line[..100], LONG).is_err());
        assert!(receive(&mut &b"GET / HTTP/1.1\r\n\r\n"[..], LONG).is_err());
    }

    #[test]
    fn texts_in_one_are_told_apart() {
        let parts = vec![vec![], vec![1, 2, 3], vec![0; 9]];
        let all = joined(&parts);
        assert_eq!(split(&all), Some(parts));
        assert_eq!(split(&all[..all.len() - 1]), None);
        assert_eq!(split(&[1, 2]), None);
    }
}
