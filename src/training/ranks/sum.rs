//! The sum of what the units of a descent said, in an order that is stated.
//!
//! With `run.reduce = "fast"` each rank adds up its own units one after the other, and rank 0 adds up the ranks'. With
//! `fixed` the sum is a binary tree over the units u of the step, which follow the order of its images:
//!
//! ```text
//! sum(a, b) = u_a                          if b = a + 1
//!             sum(a, a + k) + sum(a + k, b)     k the largest power of two below b - a
//! ```
//!
//! Each rank makes the sums of this tree that lie among its own units, rank 0 the rest: the same bits, whoever made what.
use std::collections::BTreeMap;
use std::ops::Range;

use super::group::Ranks;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::training::optimizer::{self, Gradients};

/// What units said: sums, on the CPU.
#[derive(Debug, Default)]
pub(in crate::training) struct Said {
    /// Gradients of each part.
    pub(in crate::training) gradients: Vec<Gradients>,
    /// Numbers to log.
    pub(in crate::training) numbers: Vec<f64>,
    /// Running statistics after the unit.
    pub(in crate::training) statistics: Vec<Tensor>,
}

impl Said {
    /// Adds what units behind these said; what there was nothing of becomes theirs.
    pub(in crate::training) fn add(&mut self, more: Self) -> Result<()> {
        if self.gradients.is_empty() {
            self.gradients = more.gradients;
        } else {
            let sums = self.gradients.iter_mut().zip(more.gradients);
            sums.into_iter().try_for_each(|(sum, more)| optimizer::accumulate(sum, more))?;
        }
        if self.numbers.is_empty() {
            self.numbers = more.numbers;
        } else {
            self.numbers.iter_mut().zip(more.numbers).for_each(|(sum, more)| *sum += more);
        }
        if self.statistics.is_empty() {
            self.statistics = more.statistics;
        } else {
            let sums = self.statistics.iter_mut().zip(more.statistics);
            sums.into_iter().try_for_each(|(sum, more)| sum.add_assign(&more))?;
        }
        Ok(())
    }

    /// As bytes: numbers, gradients with a byte each that says whether there is one, statistics.
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        all.extend((self.numbers.len() as u64).to_le_bytes());
        self.numbers.iter().for_each(|number| all.extend(number.to_le_bytes()));
        for gradient in self.gradients.iter().flatten() {
            all.push(u8::from(gradient.is_some()));
            if let Some(gradient) = gradient {
                put(&mut all, gradient)?;
            }
        }
        self.statistics.iter().try_for_each(|statistic| put(&mut all, statistic))?;
        Ok(all)
    }

    /// What [`bytes`](Self::bytes) made of it, of the shapes of `form`.
    fn of_bytes(mut from: &[u8], form: &Form) -> Option<Self> {
        let count = usize::try_from(u64::from_le_bytes(take(&mut from)?)).ok()?;
        let mut said = Self::default();
        for _ in 0..count {
            said.numbers.push(f64::from_le_bytes(take(&mut from)?));
        }
        for part in &form.gradients {
            let mut gradients = Gradients::new();
            for shape in part {
                let [there] = take(&mut from)?;
                gradients.push(match there {
                    0 => None,
                    _ => Some(tensor(&mut from, shape)?),
                });
            }
            said.gradients.push(gradients);
        }
        for shape in &form.statistics {
            said.statistics.push(tensor(&mut from, shape)?);
        }
        from.is_empty().then_some(said)
    }
}

/// The shapes of all that is summed.
#[derive(Clone, Debug, Default)]
pub(in crate::training) struct Form {
    /// Of the parameters of each part.
    pub(in crate::training) gradients: Vec<Vec<Vec<usize>>>,
    /// Of the running statistics.
    pub(in crate::training) statistics: Vec<Vec<usize>>,
}

pub(in crate::training) fn put(all: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    all.extend_from_slice(bytemuck::cast_slice(tensor.cpu::<f32>()?));
    Ok(())
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

pub(in crate::training) fn tensor(from: &mut &[u8], shape: &[usize]) -> Option<Tensor> {
    let (bytes, rest) = from.split_at_checked(4 * shape.iter().product::<usize>())?;
    *from = rest;
    let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Some(Tensor::from_vec(bytes.chunks_exact(4).map(four).collect::<Vec<f32>>(), shape))
}

/// A sum over units that follow each other, as far as its order lets them be added up.
#[derive(Debug)]
pub(in crate::training) struct Sum {
    fixed: bool,
    /// Units of all ranks.
    units: u64,
    form: Form,
    nodes: Vec<Node>,
}

/// The sum over units `from` to `to`.
#[derive(Debug)]
struct Node {
    from: u64,
    to: u64,
    said: Said,
}

impl Sum {
    /// A sum over `units` of `form`, in the order of the tree if it is `fixed`.
    pub(in crate::training) const fn new(fixed: bool, units: u64, form: Form) -> Self {
        Self { fixed, units, form, nodes: Vec::new() }
    }

    /// Adds what `units` said together, which follow those that were added before; one at a time if the sum is fixed.
    ///
    /// # Errors
    /// If shapes do not match.
    pub(in crate::training) fn add(&mut self, units: Range<u64>, said: Said) -> Result<()> {
        self.nodes.push(Node { from: units.start, to: units.end, said });
        while let [.., left, right] = &self.nodes[..] {
            let size = right.to - right.from;
            let siblings = left.to - left.from == size && left.from.is_multiple_of(2 * size);
            if self.fixed && !siblings {
                break;
            }
            let Some(right) = self.nodes.pop() else { break };
            let Some(left) = self.nodes.last_mut() else { break };
            left.said.add(right.said)?;
            left.to = right.to;
        }
        Ok(())
    }

    /// The sum over all units of all ranks, at all of them.
    ///
    /// # Errors
    /// If a rank is gone, or memory is full.
    pub(in crate::training) fn over(self, ranks: &Ranks) -> Result<Said> {
        if ranks.world() == 1 {
            return self.joined();
        }
        let mut mine = Vec::new();
        for node in &self.nodes {
            let said = node.said.bytes()?;
            for number in [node.from, node.to, said.len() as u64] {
                mine.extend(number.to_le_bytes());
            }
            mine.extend(said);
        }
        let form = self.form.clone();
        let sum = match ranks.gather(mine)? {
            None => None,
            Some(all) => Some(self.of_ranks(&all[1..])?.joined()?.bytes()?),
        };
        Said::of_bytes(&ranks.spread(sum)?, &form).ok_or_else(misfit)
    }

    /// With the nodes of the other ranks.
    fn of_ranks(mut self, others: &[Vec<u8>]) -> Result<Self> {
        for other in others {
            let mut from = &other[..];
            while !from.is_empty() {
                let node = Self::node(&mut from, &self.form).ok_or_else(misfit)?;
                self.nodes.push(node);
            }
        }
        Ok(self)
    }

    fn node(rest: &mut &[u8], form: &Form) -> Option<Node> {
        let mut number = || Some(u64::from_le_bytes(take(rest)?));
        let (from, to, length) = (number()?, number()?, number()?);
        let (said, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        *rest = behind;
        Some(Node { from, to, said: Said::of_bytes(said, form)? })
    }

    /// The one sum over all nodes.
    fn joined(self) -> Result<Said> {
        if self.fixed {
            let nodes = self.nodes.into_iter().map(|node| ((node.from, node.to), node.said));
            return tree(&mut nodes.collect(), 0, self.units);
        }
        let mut nodes = self.nodes.into_iter();
        let mut sum = nodes.next().map(|node| node.said).ok_or_else(misfit)?;
        nodes.try_for_each(|node| sum.add(node.said))?;
        Ok(sum)
    }
}

/// The sum over the units `from` to `to`.
fn tree(nodes: &mut BTreeMap<(u64, u64), Said>, from: u64, to: u64) -> Result<Said> {
    if let Some(said) = nodes.remove(&(from, to)) {
        return Ok(said);
    }
    if to - from < 2 {
        return Err(misfit());
    }
    let half = (to - from).next_power_of_two() / 2;
    let mut left = tree(nodes, from, from + half)?;
    left.add(tree(nodes, from + half, to)?)?;
    Ok(left)
}

fn misfit() -> Error {
    let what = "a sum of other shapes than this rank's".to_owned();
    Error::Unsupported { op: "reduce", what }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form { gradients: vec![vec![vec![2], vec![1]]], statistics: vec![vec![1]] }
    }

    /// What unit `u` says: numbers whose sum depends on the order.
    fn said(u: u64) -> Said {
        let v = (u as f32 * 0.7).sin() * 10f32.powi((u % 7) as i32);
        let gradient = Tensor::from_vec(vec![v, -v * 1.1], &[2]);
        Said {
            gradients: vec![vec![
                Some(gradient),
                (u == 2).then(|| Tensor::from_vec(vec![v], &[1])),
            ]],
            numbers: vec![f64::from(v)],
            statistics: vec![Tensor::from_vec(vec![v / 3.0], &[1])],
        }
    }

    /// The sum as `world` ranks make it together.
    fn by(world: u64, units: u64, fixed: bool) -> Vec<u8> {
        let part = |rank: u64| {
            let mut sum = Sum::new(fixed, units, form());
            let mine = units * rank / world..units * (rank + 1) / world;
            mine.for_each(|u| sum.add(u..u + 1, said(u)).unwrap());
            sum
        };
        let mut all = part(0);
        (1..world).for_each(|rank| all.nodes.extend(part(rank).nodes));
        all.joined().unwrap().bytes().unwrap()
    }

    #[test]
    fn a_fixed_sum_has_the_same_bits_whoever_made_it() {
        for units in [1, 2, 3, 5, 6, 7, 8, 12, 16, 24] {
            let one = by(1, units, true);
            for world in 2..=units.min(9) {
                assert_eq!(by(world, units, true), one, "{units} units, {world} ranks");
            }
        }
        // In the order of ranks it has not: the test can tell.
        assert_ne!(by(4, 24, false), by(1, 24, false));
    }

    #[test]
    fn the_tree_is_the_stated_one() {
        let v = |u: u64| said(u).gradients[0][0].as_ref().unwrap().cpu::<f32>().unwrap()[0];
        let mut sum = Sum::new(true, 6, form());
        (0..6).for_each(|u| sum.add(u..u + 1, said(u)).unwrap());
        let total = sum.joined().unwrap().gradients[0][0].as_ref().unwrap().to_f32_vec().unwrap();
        assert_eq!(total[0], ((v(0) + v(1)) + (v(2) + v(3))) + (v(4) + v(5)));
    }

    #[test]
    fn what_units_said_comes_back_from_bytes_and_garbage_does_not() {
        let bytes = said(2).bytes().unwrap();
        let again = Said::of_bytes(&bytes, &form()).unwrap();
        assert_eq!(again.bytes().unwrap(), bytes);
        assert!(said(1).bytes().unwrap().len() < bytes.len());
        assert!(Said::of_bytes(&bytes[1..], &form()).is_none());
        assert!(Said::of_bytes(&bytes[..bytes.len() - 2], &form()).is_none());
    }
}
