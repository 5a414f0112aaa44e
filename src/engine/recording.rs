//! Work that comes again on a GPU: done the first time, recorded the second, replayed from then on.
use super::cuda::{DevicePointer, Gpu, Graph};
use super::tensor::Tensor;
use crate::error::{Error, Result};

/// What is known of a piece of work.
///
/// The first time makes the constants that a recording must find; a piece that is done once is not recorded for
/// nothing.
#[derive(Debug, Default)]
pub enum Recording {
    /// Nothing.
    #[default]
    New,
    /// It was done, and its constants exist.
    Done,
    /// It was recorded.
    Recorded(Recorded),
    /// A recording keeps its memory to itself, and there was not enough.
    TooLarge,
}

/// A recording of work on tensors in certain places.
#[derive(Debug)]
pub struct Recorded {
    graph: Graph,
    places: Places,
    output: Option<Tensor>,
}

/// Where the tensors of some work lie.
pub type Places = Vec<Option<DevicePointer>>;

/// Those of `tensors`.
pub fn places<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Places {
    tensors.into_iter().map(Tensor::device_pointer).collect()
}

impl Recording {
    /// Does `work`, which may give a new tensor; it neither uploads nor downloads. What it gives is replaced when it is
    /// done the next time.
    ///
    /// Where tensors lie in other places than those of the recording, it is recorded again.
    ///
    /// # Errors
    /// What `work` says, or the driver.
    ///
    /// # Safety
    /// `work` reads and writes nothing but what lies at `places`, memory that it allocates itself, and what neither ends nor moves
    /// before this recording, and does the same
    /// whenever its tensors have the same places: always of the same shapes.
    pub unsafe fn play(
        &mut self,
        gpu: &Gpu,
        places: Places,
        work: &mut dyn FnMut() -> Result<Option<Tensor>>,
    ) -> Result<Option<Tensor>> {
        let is_here = |recorded: &Recorded| recorded.places == places;
        match self {
            Self::New => {
                let output = work()?;
                *self = Self::Done;
                return Ok(output);
            }
            Self::TooLarge => return work(),
            Self::Recorded(recorded) if is_here(recorded) => {}
            Self::Done | Self::Recorded(_) => {
                // What was recorded before gives its memory back first.
                *self = Self::Done;
                match gpu.capture(&mut *work) {
                    Ok((graph, output)) => {
                        *self = Self::Recorded(Recorded { graph, places, output });
                    }
                    Err(Error::Memory(_)) => {
                        *self = Self::TooLarge;
                        return work();
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        let Self::Recorded(Recorded { graph, output, .. }) = self else { return Ok(None) };
        // SAFETY: all that the work reads lies where it lay, as the caller promises, and what it made is kept here.
        unsafe { graph.replay()? };
        output.as_ref().map(|output| output.alias_on(gpu)).transpose()
    }
}
