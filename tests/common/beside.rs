//! Uploads beside the stream of the emulated GPU. They come as late as they may, when the stream waits for them; until then
//! there is no number where they go. One that may come before what uses the old bytes is an error.
use std::sync::{Arc, Mutex};

use srk::engine::cuda::{Argument, DevicePointer, Uploads};
use srk::error::{Error, Report, Result};

use super::emulated::{Machine, Work};

/// Where work that was issued since uploads followed begins and ends; nothing is noted before there are uploads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Issued(Arc<Mutex<Option<Vec<[u64; 2]>>>>);

impl Issued {
    /// Notes what `work` reads and writes; of the memory of a kernel only where it begins.
    pub(crate) fn note(&self, work: &Work) {
        let Some(issued) = &mut *self.0.lock().unwrap() else { return };
        let range = |at: &DevicePointer, bytes: usize| [at.address(), at.address() + bytes as u64];
        match work {
            Work::Launch { arguments, .. } => {
                // An emulated map begins with the address of its tensor.
                let pointers = arguments.iter().filter_map(|argument| match argument {
                    Argument::Map(words) => Some(words[0]),
                    argument => argument.address(),
                });
                issued.extend(pointers.map(|at| [at, at + 1]));
            }
            Work::Copy { to, from, bytes } => {
                issued.extend([range(to, *bytes), range(from, *bytes)]);
            }
            Work::Fill { at, bytes, .. } | Work::Forget { at, bytes } => {
                issued.push(range(at, *bytes));
            }
            Work::Sums { .. } | Work::Host(_) => {}
        }
    }

    fn begin(&self) {
        *self.0.lock().unwrap() = Some(Vec::new());
    }

    fn uses(&self, [first, end]: [u64; 2]) -> bool {
        let issued = self.0.lock().unwrap();
        issued.iter().flatten().any(|&[from, to]| from < end && first < to)
    }
}

/// What was given to be copied.
type Copies = Vec<(DevicePointer, Vec<u8>)>;

#[derive(Debug)]
pub(crate) struct Beside {
    machine: Machine,
    issued: Issued,
    /// Whether the stream waits for them, as it should.
    waits: bool,
    on_the_way: Mutex<Copies>,
}

impl Beside {
    pub(crate) fn new(machine: Machine, issued: Issued, waits: bool) -> Self {
        issued.begin();
        Self { machine, issued, waits, on_the_way: Mutex::default() }
    }
}

impl Uploads for Beside {
    fn follow(&self) -> Result<()> {
        self.issued.begin();
        Ok(())
    }

    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        if self.issued.uses([to.address(), to.address() + from.len() as u64]) {
            let cause = "an upload does not wait for what uses its memory";
            return Err(Error::Device(Report::new("the emulated GPU reports a race", cause)));
        }
        self.machine.write(to, &vec![0xff; from.len()])?;
        self.on_the_way.lock().unwrap().push((to, from.to_vec()));
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let copies = std::mem::take(&mut *self.on_the_way.lock().unwrap());
        match self.waits {
            true => copies.iter().try_for_each(|(to, from)| self.machine.write(*to, from)),
            false => Ok(()),
        }
    }
}
