//! A call of the network that goes over a picture from top to bottom; the same bits as a call on all of it.
use super::layers::{AttentiveGrid, Trunk};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::damage::TOLD;
use crate::nn::rolling::{Queue, RollingCall, Rows, Window};
use crate::ops::{add_channels, parallel, parameter_free_attention};

/// See the [module](self).
pub(super) struct Rolling<'a> {
    network: &'a AttentiveGrid,
    trunk: &'a Trunk,
    /// What the network is told of t, `[1]`.
    time: Tensor,
    /// What the blocks are told, made of the first rows: it is the same everywhere.
    told: Option<Tensor>,
    /// The low resolution, for the state's convolution.
    low: Queue,
    stem: Window,
    /// The stem, for the sum at the end.
    skip: Queue,
    blocks: Vec<Block>,
    body: Window,
    tail: Window,
}

/// A block's convolutions, and its input for the attention.
struct Block {
    input: Queue,
    convs: Vec<Window>,
}

impl<'a> Rolling<'a> {
    pub(super) fn new(
        network: &'a AttentiveGrid,
        trunk: &'a Trunk,
        time: Tensor,
        most: usize,
    ) -> Self {
        let block = |depth: usize| Block {
            input: Queue::default(),
            convs: (1..depth).map(|_| Window::new(most)).chain([Window::last(most)]).collect(),
        };
        Self {
            network,
            trunk,
            time,
            told: None,
            low: Queue::default(),
            stem: Window::last(most),
            skip: Queue::default(),
            blocks: trunk.blocks.iter().map(|(b, _)| block(b.depth())).collect(),
            body: Window::new(most),
            tail: Window::last(most),
        }
    }

    /// Splits rows of the condition into the low resolution, in `[0, 1]`, and what blocks are told.
    fn low(&mut self, condition: Rows) -> Result<Rows> {
        let start = condition.at.start;
        let mut tape = Tape::inference();
        let condition = tape.input(condition.tensor()?);
        if self.told.is_none() {
            let told = self.network.told_of(&mut tape, self.trunk, &condition, &self.time)?;
            self.told = Some(told.into_tensor()?);
        }
        let low = tape.slice_channels(&condition, 0, condition.shape()[3] - TOLD)?;
        drop(condition);
        Rows::new(start, tape.to_unit(&low)?.into_tensor()?, 1)
    }

    fn stem(&mut self, low: Option<Rows>, state: Option<Rows>, last: bool) -> Result<Option<Rows>> {
        let trunk = self.trunk;
        let Some(of_state) = &trunk.state else {
            return self.stem.pass(low, last, |tape, low, _| trunk.low.forward(tape, low));
        };
        if let Some(low) = low {
            self.low.push(&low);
        }
        let (queue, scale) = (&self.low, self.network.config.scale);
        let made = self.stem.pass(state, last, |tape, state, rows| {
            let low = tape.input(queue.get(state.value(), rows)?);
            let stem = trunk.low.forward(tape, &low)?;
            drop(low);
            let state = tape.pixel_unshuffle(state, scale)?;
            let state = of_state.forward(tape, &state)?;
            tape.add(&stem, &state)
        })?;
        if let Some(made) = &made {
            self.low.forget(made.at.end - 1);
        }
        Ok(made)
    }
}

impl Block {
    /// The block's output for the next rows of its input.
    fn pass(
        &mut self,
        trunk: &Trunk,
        i: usize,
        told: &Tensor,
        rows: Option<Rows>,
        last: bool,
    ) -> Result<Option<Rows>> {
        let (block, linear) = &trunk.blocks[i];
        let mut rows = match rows {
            None => None,
            Some(rows) => {
                self.input.push(&rows);
                let mut tape = Tape::inference();
                let told = tape.input(told.try_clone()?);
                let shift = linear.forward(&mut tape, &told)?;
                let shift = shift.value().cpu::<f32>()?;
                Some(rows.map(|x, y| add_channels::to_image(x, shift, y))?)
            }
        };
        let mut last = last;
        for (k, window) in self.convs.iter_mut().enumerate() {
            rows = window.pass(rows, last, |tape, x, _| block.convolve(tape, k, x))?;
            last = window.is_done();
        }
        if let Some(made) = &mut rows {
            let limits = block.limits();
            let limits = limits.as_deref().map_or(Ok(&[][..]), |limits| limits.cpu::<f32>())?;
            let weigh = |x: &[f32], o: &mut [f32]| parameter_free_attention::in_place(x, limits, o);
            made.combine(&self.input, weigh)?;
            self.input.forget(made.at.end);
        }
        Ok(rows)
    }
}

impl RollingCall for Rolling<'_> {
    fn pass(
        &mut self,
        condition: Option<Rows>,
        state: Option<Rows>,
        last: bool,
    ) -> Result<Option<Rows>> {
        let low = condition.map(|rows| self.low(rows)).transpose()?;
        let mut rows = self.stem(low, state, last)?;
        let Some(told) = &self.told else { return Ok(None) };
        if let Some(rows) = &rows {
            self.skip.push(rows);
        }
        let trunk = self.trunk;
        let mut last = self.stem.is_done();
        for (i, block) in self.blocks.iter_mut().enumerate() {
            rows = block.pass(trunk, i, told, rows, last)?;
            last = block.convs.last().is_none_or(Window::is_done);
        }
        let mut rows = self.body.pass(rows, last, |tape, x, _| trunk.body.forward(tape, x))?;
        if let Some(made) = &mut rows {
            made.combine(&self.skip, |stem, made| parallel::zip2(made, stem, |y, x| *y += x))?;
            self.skip.forget(made.at.end);
        }
        let scale = self.network.config.scale;
        self.tail.pass(rows, self.body.is_done(), |tape, x, _| {
            let image = trunk.tail.forward(tape, x)?;
            let image = tape.pixel_shuffle(&image, scale)?;
            tape.to_signed(&image)
        })
    }
    fn is_done(&self) -> bool {
        self.tail.is_done()
    }
}
